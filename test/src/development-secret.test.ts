import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { StartError } from '../../db/errors.js'
import { type AuthConfig, loadConfig } from '../../src/config.js'
import { resolveDevelopmentSecret } from '../../src/development-secret.js'
import t from '../support/tap.js'

const authIn = (directory: string): AuthConfig => loadConfig({ DATA_DIR: directory, JWT_ISSUER: 'me' }).auth

const mode = (path: string) => (statSync(path).mode & 0o777).toString(8)

t.test('the secret is made once, at random, and only its owner can read the file', async (t) => {
  const directory = join(t.testdir(), 'not', 'there', 'yet')
  const first = resolveDevelopmentSecret(authIn(directory))
  t.match(first, { keys: { kind: 'secret', secret: /^[\w-]{43}$/ }, issuer: 'me', audience: undefined })
  t.strictSame(resolveDevelopmentSecret(authIn(directory)), first, 'the next start finds it')
  t.equal(mode(join(directory, 'jwt-secret')), '600')
  t.equal(mode(directory), '700')
  t.strictSame(readdirSync(directory), ['jwt-secret'], 'and nothing else is left there')

  const other = resolveDevelopmentSecret(authIn(t.testdir()))
  t.notSame(other.keys, first.keys, 'another folder has another one')
})

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

t.test('an unusable folder is refused in one line that names DATA_DIR', async (t) => {
  const file = join(t.testdir({ file: '' }), 'file')
  for (const directory of [file, join(file, 'below')]) {
    t.throws(() => resolveDevelopmentSecret(authIn(directory)), {
      constructor: StartError,
      message: /^DATA_DIR: the development secret cannot be kept there: .+$/
    })
  }
})

t.test('a configured key source is returned unchanged, and no file is made', async (t) => {
  const directory = t.testdir()
  for (const env of [{ JWT_SECRET: 'x'.repeat(32) }, { JWKS_URL: 'https://issuer.example/jwks' }]) {
    const { auth } = loadConfig({ ...env, DATA_DIR: directory, JWT_AUDIENCE: 'tasks' })
    t.strictSame(resolveDevelopmentSecret(auth), auth)
  }
  t.strictSame(readdirSync(directory), [])
})

t.test('a damaged secret is refused', async (t) => {
  const secret = 'x'.repeat(43)
  for (const damaged of ['', 'short', `${secret}\n`, `\ufeff${secret}`, `${secret} `, `"${secret}"`]) {
    const file = join(t.testdir({ 'jwt-secret': damaged }), 'jwt-secret')
    const auth = { keys: { kind: 'development' as const, file }, issuer: undefined, audience: undefined }
    t.throws(
      () => resolveDevelopmentSecret(auth),
      { name: 'StartError', message: /jwt-secret is damaged/ },
      JSON.stringify(damaged)
    )
  }
})
