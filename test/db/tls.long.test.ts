import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { SECRET, sign } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { SECURED } from '../support/postgres-server.js'
import { aliceAt, type Service, startProcess, until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

// Failures that any user can cause, with a service in a process of its own that uses TLS to PostgreSQL. A TLS socket
// has a TCP socket below it. An error of either without a listener would end the process.

/** A list of this many tasks is streamed. */
const TASKS = 210
/** With this many more, no buffer between the client and the database has room for the list. */
const MORE = 3_000
const DESCRIPTION = 'x'.repeat(9_000)

const fill = (sql: ReturnType<typeof sqlClient>, count: number) => sql`
  insert into tasks (user_id, id, title, description, completed)
  select 'alice', gen_random_uuid(), 'Task', ${DESCRIPTION}, false from generate_series(1, ${count}::int)`

async function start(t: Test) {
  const url = new URL(await emptyDatabase(t))
  const sql = sqlClient(t, url.href)
  const role = `${SECURED}${url.pathname.slice(1)}`
  await sql.unsafe(`create role ${role} login password 'secret'`)
  const env = { JWT_SECRET: SECRET, MIGRATION_DATABASE_URL: url.href, DATABASE_URL: '' }
  url.username = role
  url.password = 'secret'
  env.DATABASE_URL = url.href
  const service = await (await startProcess(t, env)).ready()
  await fill(sql, TASKS)
  return { service, sql, role, alice: await aliceAt(service) }
}

/** Requests the list, and reads only its beginning. */
async function beginList({ api }: Service): Promise<IncomingMessage> {
  const headers = { authorization: `Bearer ${await sign({ sub: 'alice' })}` }
  const request = get(`${api}/api/alice/tasks`, { headers, agent: false })
  request.on('error', () => {})
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  response.on('error', () => {})
  return response
}

/** Checks that the service answers with all of alice's tasks, and stops normally. */
async function lives(
  t: Test,
  service: Service,
  alice: Awaited<ReturnType<typeof aliceAt>>,
  tasks = TASKS
): Promise<void> {
  await until(async () => {
    t.equal(service.process.exitCode, null, 'the process is there')
    return service.process.exitCode !== null || (await alice('GET')).status === 200
  })
  t.equal(((await (await alice('GET')).json()) as unknown[]).length, tasks)
  t.match(await service.stop(), { code: 0, signal: null })
  t.equal(service.err(), '')
}

t.test('the service survives clients that abort long lists', async (t) => {
  const { service, alice } = await start(t)
  for (let n = 0; n < 10; n++) {
    const response = await beginList(service)
    if (response.statusCode === 200) await once(response, 'data')
    response.destroy()
    await sleep(20)
  }
  await lives(t, service, alice)
})

t.test('the service survives a long list while its role has no connection left', async (t) => {
  const { service, sql, role, alice } = await start(t)
  await sql.unsafe(`alter role ${role} connection limit 1`)
  for (let n = 0; n < 3; n++) {
    const { status, body } = await alice('GET')
    await body?.cancel()
    t.ok(status === 200 || status === 503, `${status}`)
  }
  // An unhandled failure would come later.
  await sleep(500)
  await sql.unsafe(`alter role ${role} connection limit -1`)
  await lives(t, service, alice)
})

t.test('a list is aborted if its client stops reading, and the service survives', async (t) => {
  const { service, sql, role, alice } = await start(t)
  await fill(sql, MORE)
  const streaming = async () =>
    (await sql`select from pg_stat_activity where usename = ${role} and state <> 'idle'`).length > 0
  const response = await beginList(service)
  await once(response, 'readable')
  response.read(100)
  t.ok(await streaming())
  await until(async () => !(await streaming()))
  await t.rejects(text(response), 'what came is not taken for the whole')
  await lives(t, service, alice, TASKS + MORE)
})

t.test('the service survives a database that pauses under load', async (t) => {
  const { service, sql, role, alice } = await start(t)
  const { id } = (await (await alice('POST', '', { title: 'Buy milk' })).json()) as { id: string }
  let stopped = false
  const statuses = new Set<number>()
  const clients = Array.from({ length: 40 }, async (_, n) => {
    while (!stopped) {
      const answer = n % 2 ? alice('GET', `/${id}`) : alice('PATCH', `/${id}/complete`)
      const status = await answer.then(
        (response) => response.status,
        () => 0
      )
      statuses.add(status)
      if (status === 0) stopped = true
    }
  })
  const backends = async () =>
    (await sql`select pid from pg_stat_activity where usename = ${role}`).map(({ pid }) => pid as number)
  await sleep(500)
  const still = await backends()
  for (const pid of still) process.kill(pid, 'SIGSTOP')
  const goOn = async () => {
    const left = new Set(await backends())
    for (const pid of still) if (left.has(pid)) process.kill(pid, 'SIGCONT')
  }
  t.teardown(goOn)
  await sleep(4_000)
  await goOn()
  await sleep(500)
  stopped = true
  await Promise.all(clients)
  t.strictSame(statuses, new Set([200, 503]))
  await until(async () => (await alice('DELETE', `/${id}`)).status !== 503)
  await lives(t, service, alice)
})
