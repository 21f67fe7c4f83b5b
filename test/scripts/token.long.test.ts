import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { request, SECRET, startApp } from '../support/api.js'
import { databaseEnv } from '../support/databases.js'
import t, { type Test } from '../support/tap.js'

const SCRIPT = fileURLToPath(new URL('../../scripts/token.js', import.meta.url))
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+\n$/

interface Run {
  args: string[]
  /** The only environment variables of the process. */
  env?: Record<string, string>
  /** The working folder; a new empty one by default. */
  cwd?: string
}

async function run(t: Test, { args, env = {}, cwd = t.testdir() }: Run) {
  const child = spawn(process.execPath, [SCRIPT, ...args], {
    cwd,
    env: { PATH: process.env.PATH, ...env } as NodeJS.ProcessEnv,
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const code = new Promise<number | null>((resolve) => child.once('close', resolve))
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  return { stdout, stderr, code: await code }
}

t.test('prints only a token, and the running app accepts it', async (t) => {
  const env = { JWT_SECRET: SECRET, JWT_ISSUER: 'https://issuer.example', JWT_AUDIENCE: 'tasks' }
  const app = await startApp(t, 'postgres', env)
  for (const [user, ...ttl] of [['alice'], ['auth0|ä b', '--ttl', '15m']] as [string, ...string[]][]) {
    const { stdout, stderr, code } = await run(t, { args: [user, ...ttl], env })
    t.strictSame({ stderr, code }, { stderr: '', code: 0 })
    t.match(stdout, TOKEN)
    const authorization = `Bearer ${stdout.trim()}`
    const path = `/api/${encodeURIComponent(user)}/tasks`
    t.equal((await request(app, 'GET', path, undefined, { authorization })).status, 200, user)
    t.equal((await request(app, 'GET', '/api/bob/tasks', undefined, { authorization })).status, 403)
  }
})

t.test("without settings it uses the app's development secret", async (t) => {
  const env: Record<string, string> = { ...(await databaseEnv(t, 'embedded')), JWT_SECRET: '' }
  const app = await startApp(t, 'embedded', env)
  const { stdout, stderr } = await run(t, { args: ['alice'], env, cwd: env.DATA_DIR as string })
  t.equal(stderr, '')
  const { status } = await request(app, 'GET', '/api/alice/tasks', undefined, {
    authorization: `Bearer ${stdout.trim()}`
  })
  t.equal(status, 200)
})

t.test('.env is read, in development only', async (t) => {
  const cwd = t.testdir({
    // With the line endings and the byte order mark of an editor on Windows.
    '.env': `\ufeffJWT_SECRET=${SECRET}\r\n   \r\nDATABASE_URL=postgres://127.0.0.1/none\r\n`
  })
  const app = await startApp(t)
  const { stdout } = await run(t, { args: ['alice'], cwd })
  const { status } = await request(app, 'GET', '/api/alice/tasks', undefined, {
    authorization: `Bearer ${stdout.trim()}`
  })
  t.equal(status, 200)
  t.match(await run(t, { args: ['alice'], cwd, env: { NODE_ENV: 'production' } }), {
    stdout: '',
    stderr: /^DATABASE_URL must be set in production/,
    code: 1
  })
})

t.test('a failure prints one line and no token, with code 1', async (t) => {
  const env = { JWT_SECRET: SECRET }
  const cwd = t.testdir()
  const refused: [name: string, run: Run, stderr: RegExp][] = [
    [
      'keys of somebody else',
      { args: ['alice'], env: { JWKS_URL: 'https://issuer.example/jwks' } },
      /JWKS_URL/
    ],
    ['a bad ttl', { args: ['alice', '--ttl', 'soon'], env }, /--ttl .*1h.*"soon"/],
    ['no user', { args: [], env }, /usage: .*<user id>/],
    ['an empty user', { args: [''], env }, /usage: .*<user id>/],
    ['two users', { args: ['alice', 'bob'], env }, /usage: .*<user id>/],
    ['an unknown option', { args: ['alice', '--admin'], env }, /--admin/],
    ['a wrong setting', { args: ['alice'], env: { JWT_SECRET: 'short-secret' } }, /^JWT_SECRET must be/]
  ]
  const runs = await Promise.all(refused.map(([, options]) => run(t, { cwd, ...options })))
  for (const [n, { stdout, stderr, code }] of runs.entries()) {
    const [name, , expected] = refused[n] as (typeof refused)[number]
    t.strictSame({ stdout, code }, { stdout: '', code: 1 }, name)
    t.match(stderr, expected, name)
    t.match(stderr, /^[^\n]+\n$/, `${name}: one line`)
    t.notMatch(stderr, /short-secret/, `${name}: no secret`)
    t.notOk(stderr.includes(SECRET), `${name}: no secret`)
  }
})

t.test('a user id that begins with a dash follows --', async (t) => {
  const { stdout } = await run(t, { args: ['--', '-alice'], env: { JWT_SECRET: SECRET } })
  const [, payload = ''] = stdout.split('.')
  t.equal(JSON.parse(Buffer.from(payload, 'base64url').toString()).sub, '-alice')
})
