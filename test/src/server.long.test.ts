import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { SECRET } from '../support/api.js'
import { databaseEnv, emptyDatabase } from '../support/databases.js'
import { freePort } from '../support/postgres-server.js'
import { aliceAt, emptyFolder, type Service, startProcess, statusOf, until } from '../support/process.js'
import t from '../support/tap.js'
import { startProxy } from '../support/tcp-proxy.js'

const titlesIn = async (response: Response) =>
  ((await response.json()) as { title: string }[]).map(({ title }) => title)

const titlesOf = async (service: Service) => titlesIn(await (await aliceAt(service))('GET'))

t.test('a first start without any data', async (t) => {
  const cwd = emptyFolder(t)
  const first = await (await startProcess(t, {}, { cwd })).ready()
  // The service answers before it prints.
  await until(() => first.out().includes('curl'))
  const out = first.out()

  t.test('prints the URLs of the API and the docs', async (t) => {
    t.match(out, `API   ${first.api}\n`)
    t.match(out, `Docs  ${first.ops}/docs\n`)
    t.equal(await statusOf(`${first.ops}/docs`), 200)
  })

  const [line, ...more] = out.split('\n').filter((line) => line.startsWith('curl'))
  const [, name, value, url] = /^curl -H '([^:]+): ([^']+)' (\S+)$/.exec(line ?? '') ?? []
  const headers = { [String(name)]: String(value) }
  t.test("prints one curl command that lists alice's tasks", async (t) => {
    t.strictSame(more, [])
    const response = await fetch(String(url), { headers })
    t.equal(response.status, 200)
    t.strictSame(await response.json(), [])
  })

  t.test('tasks and tokens are valid after a restart, and after a crash', async (t) => {
    const titles: string[] = []
    let service = first
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      titles.unshift(`before ${signal}`)
      const created = await fetch(`${service.api}/api/alice/tasks`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body: JSON.stringify({ title: titles[0] })
      })
      t.equal(created.status, 201)
      const { code } = await service.stop(signal)
      t.equal(code, signal === 'SIGINT' ? 0 : null)
      const [lock] = readdirSync(join(cwd, '.data/postgres')).filter((name) => name.startsWith('lock'))
      const held = readFileSync(join(cwd, '.data/postgres', String(lock)), 'utf8') !== ''
      t.equal(held, signal === 'SIGKILL', 'a crash leaves its lock')

      service = await (await startProcess(t, {}, { cwd })).ready()
      t.strictSame(await titlesIn(await fetch(`${service.api}/api/alice/tasks`, { headers })), titles)
    }
  })
})

t.test('a second process with the same DATA_DIR exits, and the first continues', async (t) => {
  const env = { JWT_SECRET: SECRET, ...(await databaseEnv(t, 'embedded')) }
  const first = await (await startProcess(t, env)).ready()
  const second = await startProcess(t, env)
  t.equal((await second.exit()).code, 1)
  t.match(second.err(), new RegExp(`^DATA_DIR: .* is in use by process ${first.process.pid} on [^\\n]*\\n$`))
  t.equal(second.out(), '')
  t.equal((await (await aliceAt(first))('POST', '', { title: 'Buy milk' })).status, 201)
})

t.test('a failed start ends with code 1 and one line about the cause', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  await new Promise<void>((resolve) => taken.once('listening', resolve))
  const takenPort = String((taken.address() as { port: number }).port)
  const url = await emptyDatabase(t)
  const working = { DATABASE_URL: url, JWT_SECRET: SECRET }
  const DATABASE_URL = url.replace('postgres@', 'tasks:s3cretpassword@')
  const refusing = await startProxy(t, DATABASE_URL)
  await refusing.refuse()
  const silent = await startProxy(t, DATABASE_URL)
  silent.mode = 'silent'

  const cases: [what: string, env: Record<string, string>, line: RegExp][] = [
    ['a port in use', { ...working, PORT: takenPort }, /^PORT: cannot listen: .*in use/],
    ['an operations port in use', { ...working, OPS_PORT: takenPort }, /^OPS_PORT: cannot listen: .*in use/],
    [
      'a host that is none',
      { ...working, HOST: 'nowhere.invalid' },
      /^HOST: cannot listen: .*nowhere\.invalid$/
    ],
    [
      "another machine's host",
      { ...working, OPS_HOST: '203.0.113.1' },
      /^OPS_HOST: cannot listen: .*203\.0\.113\.1/
    ],
    ['a wrong port', { PORT: '99999' }, /^PORT must be .*not "99999"$/],
    ['a database that refuses', { DATABASE_URL: refusing.url }, /^DATABASE_URL: .*ECONNREFUSED/],
    [
      'a database on a host that does not exist',
      { DATABASE_URL: 'postgres://u:s3cretpassword@nowhere.invalid/d' },
      /^DATABASE_URL: .*(ENOTFOUND|EAI_AGAIN)/
    ],
    [
      'a database that says nothing',
      { DATABASE_URL: silent.url },
      /^DATABASE_URL: .*(it does not answer|did not answer in time)$/
    ]
  ]
  t.jobs = 3
  for (const [what, env, line] of cases) {
    t.test(what, { buffered: true }, async (t) => {
      const service = await startProcess(t, env)
      const { code } = await service.exit()
      t.equal(code, 1)
      t.match(service.err(), /^[^\n]+\n$/, 'one line')
      t.match(service.err().trimEnd(), line)
      t.equal(service.out(), '')
      t.notMatch(service.err(), 's3cretpassword')
    })
  }
})

t.test('.env is read from the working folder in development, and not in production', async (t) => {
  const cwd = emptyFolder(t)
  const DATABASE_URL = await emptyDatabase(t)
  const ports = { PORT: String(await freePort()), OPS_PORT: String(await freePort()) }
  writeFileSync(
    join(cwd, '.env'),
    `\ufeffJWT_SECRET=${SECRET}\r\n   \r\nDATABASE_URL=${DATABASE_URL}\r\nPORT=1\r\n`
  )
  const service = await (await startProcess(t, ports, { cwd })).ready()
  t.strictSame(
    await titlesOf(service),
    [],
    'with the secret of .env, and the port of the environment before it'
  )
  await service.stop()

  const production = await startProcess(t, { ...ports, NODE_ENV: 'production' }, { cwd })
  t.equal((await production.exit()).code, 1)
  t.match(production.err(), /^(DATABASE_URL|JWT_SECRET).* must be set/)

  writeFileSync(join(cwd, '.env'), `\ufeffJWT_SECRET=${SECRET}\n`, 'utf16le')
  const unreadable = await startProcess(t, ports, { cwd })
  t.equal((await unreadable.exit()).code, 1)
  t.equal(unreadable.err(), '.env: this is not UTF-8 text: save it as UTF-8\n')
  t.equal(unreadable.out(), '')
})

t.test('in production no token is printed', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  const env = { NODE_ENV: 'production', JWT_SECRET: SECRET, DATABASE_URL, LOG_LEVEL: 'info' }
  const service = await (await startProcess(t, env)).ready()
  t.strictSame(await titlesOf(service), [])
  await service.stop()
  t.match(service.out(), service.api, 'where it listens is in the log')
  t.notMatch(service.out() + service.err(), /Bearer|eyJ|curl/)
  t.notMatch(service.out() + service.err(), SECRET)
})
