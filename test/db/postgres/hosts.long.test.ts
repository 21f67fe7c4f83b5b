import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { clientOf, startApp } from '../../support/api.js'
import { emptyDatabase, sqlClient } from '../../support/databases.js'
import { freePort, type PostgresServer, startPostgres } from '../../support/postgres-server.js'
import t, { type Test } from '../../support/tap.js'

/** A URL whose hosts are ports of 127.0.0.1. */
const urlOf = (ports: (string | number)[], database = 'postgres') =>
  `postgres://postgres@${ports.map((port) => `127.0.0.1:${port}`).join(',')}/${database}?sslmode=disable&target_session_attrs=read-write`

async function serving(t: Test, url: string) {
  const alice = await clientOf(await startApp(t, 'postgres', { DATABASE_URL: url }), 'alice')
  const { status, json } = await alice('POST', '', { title: 'Buy milk' })
  t.equal(status, 201)
  t.equal((await alice('GET', `/${json.id}`)).status, 200)
  return alice
}

t.test('a host that refuses is skipped, at any position', async (t) => {
  const { port, pathname } = new URL(await emptyDatabase(t))
  const dead = await freePort()
  for (const ports of [
    [dead, port],
    [port, dead],
    [dead, dead, port]
  ]) {
    await serving(t, urlOf(ports, pathname.slice(1)))
  }
  await t.rejects(startApp(t, 'postgres', { DATABASE_URL: urlOf([dead, dead]) }), {
    message: /^DATABASE_URL: .*ECONNREFUSED/
  })
})

/** Restarts the server as a standby. */
async function makeStandby(t: Test, server: PostgresServer): Promise<void> {
  const sql = sqlClient(t, server.url('postgres'))
  const directory = (await sql`show data_directory`)[0]?.data_directory as string
  await server.kill()
  writeFileSync(join(directory, 'standby.signal'), '')
  await server.restart()
}

t.test('the service uses the primary of several servers, also after a failover', async (t) => {
  const [first, second] = await Promise.all([startPostgres(), startPostgres()])
  t.teardown(() => Promise.all([first.stop(), second.stop()]))
  // Both servers have the schema, so to the service one looks like the standby of the other.
  await serving(t, first.url('postgres'))
  await makeStandby(t, first)

  const alice = await serving(t, urlOf([first.port, second.port]))
  for (let request = 0; request < 20; request++)
    t.equal((await alice('GET')).json.length, 1, 'what was written is read')

  await second.kill()
  await sqlClient(t, first.url('postgres'))`select pg_promote()`
  const until = performance.now() + 30_000
  let answer = await alice('POST', '', { title: 'Buy bread' })
  while (answer.status === 503 && performance.now() < until) {
    await setTimeout(100)
    answer = await alice('POST', '', { title: 'Buy bread' })
  }
  t.equal(answer.status, 201)
  t.equal((await alice('GET', `/${answer.json.id}`)).status, 200)
})
