import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Answer, type Client, clientOf, expectProblem, startApp } from '../../support/api.js'
import { sqlClient } from '../../support/databases.js'
import { type PostgresServer, startPostgres } from '../../support/postgres-server.js'
import { until } from '../../support/process.js'
import t, { type Test } from '../../support/tap.js'

type Sql = ReturnType<typeof sqlClient>

const directoryOf = async (sql: Sql) => (await sql`show data_directory`)[0]?.data_directory as string
const isStandby = async (sql: Sql) => (await sql`select pg_is_in_recovery() as is`)[0]?.is as boolean
const titles = async (sql: Sql) => (await sql`select title from tasks order by id`).map(({ title }) => title)

/** Starts a stopped server as the standby of another one. */
async function follow(server: PostgresServer, directory: string, primary: PostgresServer): Promise<void> {
  const source = `host=127.0.0.1 port=${primary.port} user=postgres application_name=other`
  appendFileSync(join(directory, 'postgresql.auto.conf'), `primary_conninfo = '${source}'\n`)
  writeFileSync(join(directory, 'standby.signal'), '')
  await server.restart()
}

/** A primary, and a standby that streams from it. */
async function startPair(t: Test) {
  const servers = [await startPostgres(), await startPostgres()] as const
  t.teardown(() => Promise.all(servers.map((server) => server.stop())))
  const [primary, standby] = servers
  const sqls = servers.map((server) => sqlClient(t, server.url('postgres'))) as [Sql, Sql]
  const directories = [await directoryOf(sqls[0]), await directoryOf(sqls[1])] as const
  await Promise.all(servers.map((server) => server.kill('SIGINT')))
  execFileSync('rm', ['-r', directories[1]])
  execFileSync('cp', ['-a', directories[0], directories[1]])
  await primary.restart()
  await follow(standby, directories[1], primary)
  return { primary, standby, sqls, directories }
}

const urlOf = (...servers: PostgresServer[]) =>
  `postgres://postgres@${servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}/postgres?sslmode=disable`

/** Repeats a create until it is acknowledged. All other answers must be 503. */
async function create(t: Test, alice: Client, title: string): Promise<void> {
  const key = { 'idempotency-key': randomUUID() }
  let answer: Answer
  do {
    answer = await alice('POST', '', { title }, key)
    if (answer.status !== 201) expectProblem(t, answer, 'unavailable')
  } while (answer.status === 503)
}

t.test('after a switchover the service leaves the old primary, which is now a standby', async (t) => {
  const { primary, standby, sqls, directories } = await startPair(t)
  const [first, second] = sqls
  // The standby is first in the list, so that the order does not help.
  const app = await startApp(t, 'postgres', { DATABASE_URL: urlOf(standby, primary) })
  const alice = await clientOf(app, 'alice')
  await create(t, alice, 'before')

  await primary.kill('SIGINT')
  await second`select pg_promote()`
  await follow(primary, directories[0], standby)
  for (let n = 0; n < 20; n++) await create(t, alice, `after ${n}`)

  const expected = ['before', ...Array.from({ length: 20 }, (_, n) => `after ${n}`)]
  t.strictSame(await titles(second), expected, 'the new primary has all')
  t.equal(await isStandby(first), true)
  await until(async () => (await titles(first)).length === expected.length)
  t.equal((await alice('GET')).json.length, expected.length, 'what was written is read')
  const { count } = (
    await first`
    select count(*)::int from pg_stat_activity where query like '%tasks%' and backend_type = 'client backend'
      and pid <> pg_backend_pid()`
  )[0] as { count: number }
  t.equal(count, 0, 'nothing asks the standby for tasks')
})

t.test('a standby alone is refused, for reads too', async (t) => {
  const { primary, standby, sqls, directories } = await startPair(t)
  const alice = await clientOf(await startApp(t, 'postgres', { DATABASE_URL: urlOf(primary) }), 'alice')
  await create(t, alice, 'Buy milk')
  await until(async () => (await titles(sqls[1])).length === 1)
  await t.rejects(startApp(t, 'postgres', { DATABASE_URL: urlOf(standby) }), {
    message: /^DATABASE_URL: .*the server is a standby/
  })

  // The server at this address has become a standby.
  await primary.kill('SIGINT')
  await sqls[1]`select pg_promote()`
  await follow(primary, directories[0], standby)
  for (let n = 0; n < 5; n++) {
    expectProblem(t, await alice('GET'), 'unavailable')
    expectProblem(t, await alice('POST', '', { title: 'Buy bread' }), 'unavailable')
  }
})

t.test('while the synchronous standby is away, no client sees a task that it does not have', async (t) => {
  const { primary, standby, sqls, directories } = await startPair(t)
  const [first] = sqls
  const app = await startApp(t, 'postgres', { DATABASE_URL: urlOf(primary, standby) })
  const alice = await clientOf(app, 'alice')
  await create(t, alice, 'before')
  await first`alter system set synchronous_standby_names = 'other'`
  await first`select pg_reload_conf()`
  await create(t, alice, 'with the standby')
  await standby.kill('SIGINT')

  const waiting = async () =>
    (await first`select count(*)::int from pg_stat_activity where wait_event = 'SyncRep'`)[0]?.count as number
  const expected = ['before', 'with the standby']
  for (let round = 0; round < 3; round++) {
    const writes = ['alone', 'and', 'shared'].map((title) =>
      alice('POST', '', { title: `${title} ${round}` })
    )
    for (const answer of await Promise.all(writes)) expectProblem(t, answer, 'unavailable')
    t.strictSame(await titles(first), expected, 'writes that were not acknowledged are not seen')
    const list = await alice('GET')
    t.equal(list.status, 200, 'reads go on')
    t.equal(list.json.length, expected.length)
    t.ok((await waiting()) <= 5, `${await waiting()} connections wait for the standby`)
  }

  writeFileSync(join(directories[1], 'standby.signal'), '')
  await standby.restart()
  await create(t, alice, 'after')
  await until(async () => (await waiting()) === 0)
  const seen = await titles(first)
  t.ok(seen.includes('after'))
  t.equal(new Set(seen).size, seen.length, 'each write happened once at most')
})
