// Starts the built service with its embedded database, runs script.ts with each client, and follows docs/sdks.md.
import { spawn } from 'node:child_process'
import { createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { connect as heyApi } from './hey-api.js'
import { connect as openapiFetch } from './openapi-fetch.js'
import { connect as orval } from './orval.js'
import { follow, sections } from './page.js'
import { run } from './script.js'

const SECRET = randomBytes(32).toString('hex')
const SERVER = fileURLToPath(new URL('../../../dist/src/server.js', import.meta.url))

const [port, opsPort] = await freePorts()
const apiUrl = `http://127.0.0.1:${port}`
const opsUrl = `http://127.0.0.1:${opsPort}`
const folder = mkdtempSync(join(tmpdir(), 'tasks-sdk-'))
const server = spawn(process.execPath, [SERVER], {
  // The service reads .env in its working folder, and this one has none.
  cwd: folder,
  env: {
    PATH: process.env.PATH,
    PORT: `${port}`,
    OPS_PORT: `${opsPort}`,
    DATA_DIR: folder,
    JWT_SECRET: SECRET,
    LOG_LEVEL: 'error'
  },
  stdio: ['ignore', 'ignore', 'inherit']
})
const exited = once(server, 'exit')

const counts = { passed: 0, failed: 0 }
try {
  await ready()
  for (const [name, connect] of Object.entries({ 'openapi-fetch': openapiFetch, 'hey-api': heyApi, orval })) {
    console.log(`\n${name}`)
    // Issuers use such characters in user ids, and a path must encode them.
    const user = `${name}|Zoë/50% ?#`
    await run(check, connect, { baseUrl: apiUrl, user, token: sign(user) })
  }
  console.log('\ndocs/sdks.md')
  for (const [index, section] of sections.entries()) {
    await check(section.title, () =>
      follow(section, join(folder, `page-${index}`), { apiUrl, opsUrl, token: sign('alice') })
    )
  }
} finally {
  server.kill()
  await exited
  rmSync(folder, { recursive: true, force: true })
}
console.log(`\n${counts.passed} passed, ${counts.failed} failed`)
if (counts.failed > 0) process.exitCode = 1

async function check(title: string, body: () => Promise<void>) {
  try {
    await body()
    counts.passed++
    console.log(`  ok      ${title}`)
  } catch (error) {
    counts.failed++
    console.log(`  FAILED  ${title}\n`, error)
  }
}

/** A token for an hour, like the user's issuer would issue. */
function sign(sub: string): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const exp = Math.floor(Date.now() / 1000) + 3600
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub, exp })}`
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`
}

async function freePorts(): Promise<number[]> {
  const servers = [createServer(), createServer()]
  const ports = []
  for (const server of servers) {
    await once(server.listen(0, '127.0.0.1'), 'listening')
    ports.push((server.address() as { port: number }).port)
  }
  for (const server of servers) server.close()
  return ports
}

async function ready() {
  for (let attempt = 0; attempt < 600; attempt++) {
    if (server.exitCode !== null) throw new Error(`The service ended with code ${server.exitCode}`)
    const answer = await fetch(`${opsUrl}/ready`).catch(() => undefined)
    if (answer?.ok) return
    await sleep(100)
  }
  throw new Error('The service was not ready within a minute')
}
