import { once } from 'node:events'
import { Agent, get, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { LONGEST_ARRAY } from '../../../db/tasks.js'
import { urlOf } from '../../../src/ops.js'
import { clientOf, sign, startApp } from '../../support/api.js'
import { migratedDatabase, sqlClient } from '../../support/databases.js'
import { until } from '../../support/process.js'
import t, { type Test } from '../../support/tap.js'

// Each test has a database of its own and mostly waits, so they run at the same time.
t.jobs = 4

/** Number of tasks in a long list. With their descriptions they have 20 MB, more than the sockets on the way hold. */
const MANY = 2_000

/** Gives a user this many tasks. The newest has the greatest number. */
const fill = (sql: ReturnType<typeof sqlClient>, user: string, count: number) => sql`
  insert into tasks (user_id, id, title, description, completed)
  select ${user}, ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'Task ' || n, repeat('x', 10000), false
  from generate_series(1, ${count}::int) n`

const titles = (tasks: { title: string }[]) => tasks.map(({ title }) => title)
const newestFirst = (count: number) => Array.from({ length: count }, (_, i) => `Task ${count - i}`)

const authorized = async (user = 'alice') => ({ authorization: `Bearer ${await sign({ sub: user })}` })

/** Requests a user's list over real HTTP. */
async function ask(url: string, user = 'alice'): Promise<IncomingMessage> {
  const headers = await authorized(user)
  const request = get(`${url}/api/${user}/tasks`, { headers, agent: false })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  return response
}

async function listening(t: Test, tasks: number, env: Record<string, string> = {}) {
  const database = await migratedDatabase(t)
  const app = await startApp(t, 'postgres', { DATABASE_URL: database, ...env })
  const sql = sqlClient(t, database)
  await fill(sql, 'alice', tasks)
  await app.listen({ host: '127.0.0.1', port: 0 })
  return { app, sql, url: urlOf(app), alice: await clientOf(app, 'alice') }
}

/** Counts the service's busy connections. */
const atWork = (sql: ReturnType<typeof sqlClient>) => sql`
  select pid from pg_stat_activity
  where datname = current_database() and application_name = 'tasks-api' and state = 'active'`

t.test('a list is a snapshot, even if tasks change while it is read', async (t) => {
  const { sql, url, alice } = await listening(t, MANY)
  const response = await ask(url)
  await once(response, 'readable')
  await sql`delete from tasks where title = 'Task 1'`
  await sql`update tasks set title = 'Changed' where title = 'Task 2'`
  await sql`insert into tasks (user_id, id, title, completed, completed_at)
    values ('alice', '01900000-0000-7000-8000-000000000000', 'Task 0', false, null)`
  t.same(titles(JSON.parse(await text(response))), newestFirst(MANY))
  t.same(titles((await alice('GET')).json).slice(-3), ['Task 3', 'Changed', 'Task 0'])
})

t.test('a client that disconnects stops the statement', async (t) => {
  const { sql, url } = await listening(t, MANY)
  const response = await ask(url)
  await once(response, 'readable')
  await until(async () => (await atWork(sql)).length === 1)
  response.destroy()
  await until(async () => (await atWork(sql)).length === 0)
})

t.test('a client that disconnects before the list begins leaves no busy connection', async (t) => {
  const { app, sql, url, alice } = await listening(t, MANY)
  const holder = await sql.reserve()
  await holder`begin`
  await holder`lock table tasks in access exclusive mode`
  const agent = new Agent()
  const headers = await authorized()
  let arrived = 0
  app.server.on('request', () => arrived++)
  for (let i = 0; i < 20; i++) get(`${url}/api/alice/tasks`, { headers, agent }).on('error', () => {})
  let isReading = false
  await until(async () => {
    isReading ||= (await atWork(sql)).length > 0
    return arrived === 20 && isReading
  })
  agent.destroy()
  await holder`rollback`
  holder.release()
  await until(async () => (await atWork(sql)).length === 0)
  await until(async () => (await alice('GET')).json.length === MANY)
})

t.test('a list that fails half-way is aborted, and does not look complete', async (t) => {
  const { sql, url, alice } = await listening(t, MANY)
  const response = await ask(url)
  await once(response, 'readable')
  const [backend] = await atWork(sql)
  await sql`select pg_terminate_backend(${backend?.pid})`
  await t.rejects(text(response), { code: 'ECONNRESET' })
  await until(async () => (await alice('GET')).json.length === MANY)
})

t.test('a list that fails before its first row is answered 503', async (t) => {
  const { sql, alice } = await listening(t, LONGEST_ARRAY + 1)
  const holder = await sql.reserve()
  await holder`begin`
  await holder`lock table tasks in access exclusive mode`
  t.equal((await alice('GET')).status, 503)
  await holder`rollback`
  holder.release()
  await until(async () => (await alice('GET')).json.length === LONGEST_ARRAY + 1)
})

t.test('half of the connections read long lists, and further lists wait or are refused', async (t) => {
  const { sql, url, alice } = await listening(t, MANY, { DATABASE_POOL_MAX: '4' })
  const users = ['alice', 'bob', 'carol']
  for (const user of users.slice(1)) await fill(sql, user, MANY)
  // No client reads its list to the end, so none makes a connection free.
  const responses = await Promise.all(users.map((user) => ask(url, user)))
  const statuses = responses.map(({ statusCode }) => statusCode)
  t.strictSame([...statuses].sort(), [200, 200, 503])
  t.equal((await alice('POST', '', { title: 'Buy milk' })).status, 201, 'other requests have the other half')
  const waiting = ask(url, users[statuses.indexOf(503)])
  const [first, second] = responses.filter(({ statusCode }) => statusCode === 200)
  first?.destroy()
  const next = await waiting
  t.equal(next.statusCode, 200, 'one that waits begins when another has ended')
  // Both at the same time, because a list without a reader is aborted after a while.
  const bodies = await Promise.all([second as IncomingMessage, next].map(text))
  for (const body of bodies) t.ok(JSON.parse(body).length >= MANY)
})

t.test('a user whose clients do not read long lists keeps no other user from one', async (t) => {
  const { sql, url } = await listening(t, MANY, { DATABASE_POOL_MAX: '4' })
  await fill(sql, 'bob', MANY)
  const unread = await Promise.all([ask(url), ask(url), ask(url)])
  t.strictSame(unread.map(({ statusCode }) => statusCode).sort(), [200, 503, 503])
  t.equal(JSON.parse(await text(await ask(url, 'bob'))).length, MANY)
})

t.test('a client that reads no answer loses its connection', async (t) => {
  const { app, url } = await listening(t, 10)
  const connections = () =>
    new Promise<number>((resolve) => app.server.getConnections((_, count) => resolve(count)))
  // A hundredth, because this test waits for it. Without a timeout it stays 0, and the connection open.
  app.server.timeout /= 100
  const { authorization } = await authorized()
  const client = connect(Number(new URL(url).port), '127.0.0.1').on('error', () => {})
  t.teardown(() => client.destroy())
  // More than the sockets on the way hold.
  client.pause()
  client.write(
    `GET /api/alice/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: ${authorization}\r\n\r\n`.repeat(400)
  )
  await until(async () => (await connections()) === 1)
  await until(async () => (await connections()) === 0)
})
