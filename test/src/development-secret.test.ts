import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
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
