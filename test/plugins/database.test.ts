import Fastify from 'fastify'
import { StartError } from '../../db/errors.js'
import type { DatabaseConfig } from '../../db/index.js'
import database from '../../plugins/database.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import t, { type Test } from '../support/tap.js'
import { startProxy } from '../support/tcp-proxy.js'

async function start(t: Test, config: DatabaseConfig) {
  const app = Fastify({ pluginTimeout: 0 })
  t.teardown(() => app.close())
  await app.register(database, { database: config })
  await app.ready()
  return app
}

const connections = (sql: ReturnType<typeof sqlClient>) => sql`
  select from pg_stat_activity where application_name = 'tasks-api' and datname = current_database()`

t.test('opens and migrates the database, and closes it with the app', async (t) => {
  const url = await emptyDatabase(t)
  const sql = sqlClient(t, url)
  const app = await start(t, { kind: 'postgres', url })
  await app.db.ping(5_000)
  t.equal((await sql`select from tasks`).length, 0)
  t.ok((await connections(sql)).length > 0)
  await app.close()
  let left = 1
  for (let tries = 0; left > 0 && tries < 100; tries++) left = (await connections(sql)).length
  t.equal(left, 0)
})

t.test('closes the database only after the last request', async (t) => {
  const url = await emptyDatabase(t)
  // A keep-alive connection would delay the close.
  const app = Fastify({ keepAliveTimeout: 1 })
  await app.register(database, { database: { kind: 'postgres', url } })
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  let arrived = () => {}
  const inside = new Promise<void>((resolve) => {
    arrived = resolve
  })
  app.get('/', async () => {
    arrived()
    await held
    await app.db.ping(5_000)
    return 'answered'
  })
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  const answer = fetch(address)
  await inside
  const closed = app.close()
  setTimeout(release, 100)
  t.equal(await (await answer).text(), 'answered')
  await closed
})

t.test('the start fails in time with a reason that has no password', async (t) => {
  const url = (await emptyDatabase(t)).replace('postgres@', 'tasks:s3cretpassword@')
  const refusing = await startProxy(t, url)
  const closing = await startProxy(t, url)
  closing.mode = 'close'
  // Last, because its port is free from then on.
  await refusing.refuse()
  const onBothAddresses = refusing.url.replace('127.0.0.1', 'localhost')
  const noDatabase = t.testdir({ pgdata: { PG_VERSION: '9.6' } })
  const cases: [string, DatabaseConfig, RegExp][] = [
    ['on a server that refuses', { kind: 'postgres', url: refusing.url }, /^DATABASE_URL: .*ECONNREFUSED/],
    [
      'on a server that refuses on each address of its name',
      { kind: 'postgres', url: onBothAddresses },
      /^DATABASE_URL: .*ECONNREFUSED/
    ],
    [
      'on a server that closes the connection',
      { kind: 'postgres', url: closing.url },
      /^DATABASE_URL: .*(closed the connection|ECONNRESET)$/
    ],
    ['with an unknown role', { kind: 'postgres', url }, /^DATABASE_URL: .*role "tasks" does not exist/],
    [
      'with an unreadable URL',
      { kind: 'postgres', url: 'postgres://u:s3cretpassword%zz@h/d' },
      /^DATABASE_URL cannot be used: the password/
    ],
    [
      'with an unknown parameter for the role that migrates',
      {
        kind: 'postgres',
        url: await emptyDatabase(t),
        migrationUrl: 'postgres://u:s3cretpassword@h/d?keepalive=1'
      },
      /^MIGRATION_DATABASE_URL cannot be used: keepalive is not a parameter/
    ],
    ['in a file', { kind: 'embedded', directory: '/dev/null/x' }, /^DATA_DIR: /],
    ['in a folder without a database', { kind: 'embedded', directory: noDatabase }, /^DATA_DIR: /]
  ]
  for (const [what, config, reason] of cases) {
    t.test(what, async (t) => {
      const error = await start(t, config).then(
        () => undefined,
        (error: Error) => error
      )
      t.type(error, StartError)
      t.match(error?.message, reason)
      t.notMatch(error?.message, /s3cretpassword|\n/)
    })
  }
})
