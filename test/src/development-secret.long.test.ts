import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import t from '../support/tap.js'

t.test('processes that start at the same time use one secret', async (t) => {
  const directory = join(t.testdir(), 'new')
  const source = fileURLToPath(new URL('../../src', import.meta.url))
  const code = `
    import { once } from 'node:events'
    const { loadConfig } = await import(${JSON.stringify(`${source}/config.js`)})
    const { resolveDevelopmentSecret } = await import(${JSON.stringify(`${source}/development-secret.js`)})
    const { auth } = loadConfig({ DATA_DIR: ${JSON.stringify(directory)} })
    process.stdout.write('ready\\n')
    const [at] = await once(process.stdin, 'data')
    while (Date.now() < Number(at)) {}
    process.stdout.write(resolveDevelopmentSecret(auth).keys.secret)
    process.stdin.destroy()`
  const children = Array.from({ length: 4 }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', code], {
      stdio: ['pipe', 'pipe', 'inherit']
    })
  )
  await Promise.all(children.map(({ stdout }) => once(stdout, 'readable')))
  const at = Date.now() + 100
  const secrets = await Promise.all(
    children.map(({ stdin, stdout }) => {
      stdin.end(String(at))
      return text(stdout)
    })
  )
  t.equal(secrets[0]?.replace('ready\n', ''), readFileSync(join(directory, 'jwt-secret'), 'utf8'))
  t.equal(new Set(secrets).size, 1)
})
