import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The service tolerates 5 seconds more. */
export const TOKEN_SECONDS = 10

/** Starts the whole example on free ports, with empty databases. */
export async function startExample() {
  const data = mkdtempSync(join(tmpdir(), 'tasks-browser-'))
  const [api, ops, issuer, page] = await freePorts(4)
  const child = spawn(process.execPath, [fileURLToPath(new URL('../start.mjs', import.meta.url))], {
    env: {
      ...process.env,
      PORT: `${api}`,
      OPS_PORT: `${ops}`,
      ISSUER_PORT: `${issuer}`,
      PAGE_PORT: `${page}`,
      DATA_DIR: data,
      JWT_LIFETIME: `${TOKEN_SECONDS}s`
    },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const ended = once(child, 'exit')
  await new Promise((resolve, reject) => {
    let output = ''
    child.stdout.on('data', (chunk) => {
      output += chunk
      if (output.includes('Ctrl-C')) resolve(undefined)
    })
    child.once('exit', () => reject(new Error(`The example did not start.\n${output}`)))
  })
  return {
    api: `http://127.0.0.1:${api}`,
    issuer: `http://127.0.0.1:${issuer}`,
    page: `http://127.0.0.1:${page}`,
    async stop() {
      child.kill()
      await ended
      rmSync(data, { recursive: true, force: true })
    }
  }
}

/** @param {number} count */
async function freePorts(count) {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => /** @type {import('node:net').AddressInfo} */ (server.address()).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}
