import { Agent, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { SECRET, sign } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { aliceAt, type Service, startProcess, statusOf, until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

/** Number of clients, each with a connection: more than the limit of queued statements. */
const CLIENTS = 1_500
/** Number of clients that connect at the same time. The kernel resets connections beyond the listener's queue. */
const WAVE = 250
/** Number of answers before the load ends: each client's first, and more for most. */
const ANSWERS = 3 * CLIENTS
/** Limit for the additional memory of these connections and 1,000 statements. */
const MEMORY = 400 * 2 ** 20
/** Limit for the additional memory of answers that nobody reads. */
const UNREAD_MEMORY = 400 * 2 ** 20
/** Number of another user's requests while nobody reads them. */
const UNREAD_REQUESTS = 40
/** Number of connections with requests whose content is large. */
const CONTENT_CONNECTIONS = 20
/** Limit for the additional memory of these requests. */
const CONTENT_MEMORY = 250 * 2 ** 20
/** About what Node takes by default in a container of 512 MiB. With more, it collects garbage later. */
const HEAP = '--max-old-space-size=256'
const EMOJI = '\u{1f600}'
/** A statement times out after 2 seconds, so an earlier 503 was a refusal without a statement. */
const STATEMENT_MS = 2_000

interface Seen {
  status: number | undefined
  retryAfter: string | undefined
  code: string | undefined
  milliseconds: number
}

/** Clients that each have one request at a time, and wait after a 503 for the time in Retry-After. */
async function startClients(t: Test, service: Service) {
  // By default the agent keeps 256 idle connections. All other clients would reconnect at the same time.
  const agent = new Agent({ keepAlive: true, maxFreeSockets: CLIENTS })
  const authorization = `Bearer ${await sign({ sub: 'alice' })}`
  const answers: Seen[] = []
  let isOver = false

  const ask = async (): Promise<Seen> => {
    const from = performance.now()
    const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
      request(`${service.api}/api/alice/tasks`, { agent, headers: { authorization } }, resolve)
        .on('error', reject)
        .end()
    })
    const body = await text(response)
    return {
      status: response.statusCode,
      retryAfter: response.headers['retry-after'],
      code: JSON.parse(body).code,
      milliseconds: performance.now() - from
    }
  }
  const client = async () => {
    while (!isOver) {
      const answer = await ask()
      answers.push(answer)
      if (answer.status === 503) await sleep(Number(answer.retryAfter) * 1_000)
    }
  }

  const clients: Promise<void>[] = []
  t.teardown(() => agent.destroy())
  for (let begun = 0; begun < CLIENTS; begun += WAVE) {
    clients.push(...Array.from({ length: WAVE }, client))
    // Connections are accepted in order. When this one is answered, the queue is empty.
    await fetch(`${service.api}/`, { headers: { connection: 'close' } })
  }
  return {
    answers,
    async stop() {
      isOver = true
      await Promise.all(clients)
    }
  }
}

const memoryOf = async ({ ops }: Service) => {
  const metrics = await (await fetch(`${ops}/metrics`)).text()
  return Number(/^process_resident_memory_bytes (\d+)$/m.exec(metrics)?.[1])
}

/** So many tasks whose description has this character 10,000 times. */
type Tasks = { count: number; character: string }

/** The service with these tasks of alice, the oldest first, and a client of bob, who has none. */
async function startWith(t: Test, tasks: readonly Tasks[], env = {}) {
  const DATABASE_URL = await emptyDatabase(t)
  const service = await (
    await startProcess(t, { JWT_SECRET: SECRET, DATABASE_URL, LOG_LEVEL: 'warn', NODE_OPTIONS: HEAP, ...env })
  ).ready()
  const sql = sqlClient(t, DATABASE_URL)
  for (const [group, { count, character }] of tasks.entries()) {
    await sql`
      insert into tasks (user_id, id, title, description, completed)
      select 'alice', lpad(to_hex(${group}::int * 10000 + n), 32, '0')::uuid, 'x', repeat(${character}, 10000), false
      from generate_series(1, ${count}::int) n`
  }
  const authorization = `Bearer ${await sign({ sub: 'alice' })}`
  const bob = { authorization: `Bearer ${await sign({ sub: 'bob' })}` }
  const asBob = () => fetch(`${service.api}/api/bob/tasks`, { headers: bob })
  return { service, sql, authorization, asBob }
}

/** Sends these bytes on a new connection, and reads nothing. */
function sendUnread(t: Test, service: Service, bytes: string): Socket {
  const socket = connect(Number(new URL(service.api).port), '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  socket.pause().write(bytes)
  return socket
}

for (const { name, tasks, connections, pipelined, env } of [
  { name: 'lists of long texts', tasks: [{ count: 200, character: EMOJI }], connections: 8, pipelined: 1 },
  // The size of a batch is guessed from the one before.
  {
    name: 'lists whose first texts are short',
    tasks: [
      { count: 950, character: EMOJI },
      { count: 50, character: '' }
    ],
    connections: 1,
    pipelined: 1,
    env: { DATABASE_POOL_MAX: '40' }
  },
  {
    name: 'lists that are not streamed',
    tasks: [{ count: 6, character: EMOJI }],
    connections: 75,
    pipelined: 1
  },
  // Node parses all requests that arrive in one packet.
  { name: 'pipelined lists', tasks: [{ count: 6, character: EMOJI }], connections: 1, pipelined: 100 },
  {
    name: 'lists of control characters',
    tasks: [{ count: 6, character: '\u{1}' }],
    connections: 1,
    pipelined: 100
  }
] as const) {
  t.test(`${name} that nobody reads take little memory`, async (t) => {
    const { service, authorization, asBob } = await startWith(t, tasks, env)
    const before = await memoryOf(service)
    const request = `GET /api/alice/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\n\r\n`
    let peak = before
    const statuses: number[] = []
    for (let i = 0; i < UNREAD_REQUESTS; i++) {
      for (let n = 0; n < connections; n++) sendUnread(t, service, request.repeat(pipelined))
      statuses.push((await asBob()).status)
      peak = Math.max(peak, await memoryOf(service))
    }
    t.comment(`memory ${mib(before)} before, ${mib(peak)} at most`)
    t.ok(peak - before < UNREAD_MEMORY, `memory: ${mib(before)} before, ${mib(peak)} with the lists`)
    t.ok(statuses.includes(200), 'other users are served')
  })
}

const POST = 'POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\n'
/** 64 KiB of JSON that take 1.3 MB as objects. */
const OBJECTS = `{"z":[${'{},'.repeat(21_800)}{}]}`
/** A query of 15 KB with 3,900 names. */
const NAMES = Array.from({ length: 3_900 }, (_, n) => n.toString(36)).join('&')

for (const { name, request } of [
  {
    name: 'bodies',
    request: (authorization: string) =>
      `${POST}Authorization: ${authorization}\r\nContent-Type: application/json\r\nContent-Length: ${OBJECTS.length}\r\n\r\n${OBJECTS}`
  },
  {
    name: 'queries',
    request: () => `GET /api/alice/tasks?${NAMES} HTTP/1.1\r\nHost: x\r\n\r\n`
  }
]) {
  t.test(`the ${name} of requests that have their answers take little memory`, async (t) => {
    const { service, sql, authorization } = await startWith(t, [])
    const before = await memoryOf(service)
    // The first request waits for the lock, and the answers of all others wait for its answer.
    const first = `GET /api/alice/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\n\r\n`
    const holder = await sql.reserve()
    await holder`begin`
    await holder`lock table tasks`
    for (let n = 0; n < CONTENT_CONNECTIONS; n++) {
      sendUnread(t, service, first + request(authorization).repeat(100))
    }
    let peak = before
    for (let i = 0; i < 20; i++) {
      await sleep(100)
      peak = Math.max(peak, await memoryOf(service))
    }
    await holder`rollback`
    holder.release()
    t.comment(`memory ${mib(before)} before, ${mib(peak)} at most`)
    t.ok(peak - before < CONTENT_MEMORY, `memory: ${mib(before)} before, ${mib(peak)} with the requests`)
    t.equal(await statusOf(`${service.ops}/live`), 200)
  })
}

t.test('answers that a client reads late stay, while another user reads none', async (t) => {
  const { service, sql, authorization, asBob } = await startWith(t, [{ count: 6, character: EMOJI }])
  await sql`insert into tasks select 'mallory', id, title, description, completed from tasks`
  const mallory = `Bearer ${await sign({ sub: 'mallory' })}`
  const list = (user: string, token: string) =>
    `GET /api/${user}/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: ${token}\r\n\r\n`
  const { length } = Buffer.from(
    await (await fetch(`${service.api}/api/alice/tasks`, { headers: { authorization } })).arrayBuffer()
  )
  // More than the sockets on the way hold.
  const late = sendUnread(t, service, list('alice', authorization).repeat(50))
  const isFull = () => service.out().includes('did not read the answers')
  // One connection after the other: of more requests at the same time, most would be refused.
  for (let i = 0; i < 200 && !isFull(); i++) {
    sendUnread(t, service, list('mallory', mallory).repeat(100))
    await asBob()
  }
  t.ok(isFull(), 'another connection was closed')
  let received = 0
  for await (const chunk of late) {
    received += chunk.length
    if (received > 50 * length) break
  }
  t.ok(received > 50 * length, 'all 50 answers')
})

t.test("requests beyond the database's capacity are refused at once, and the service recovers", async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  const env = { JWT_SECRET: SECRET, DATABASE_URL, LOG_LEVEL: 'error' }
  const service = await (await startProcess(t, env)).ready()
  const alice = await aliceAt(service)
  t.equal((await alice('POST', '', { title: 'Buy milk' })).status, 201)
  const before = await memoryOf(service)

  const holder = await sqlClient(t, DATABASE_URL).reserve()
  await holder`begin`
  await holder`lock table tasks`
  const { answers, stop } = await startClients(t, service)

  let peak = 0
  const live: (number | undefined)[] = []
  await until(async () => {
    live.push(await statusOf(`${service.ops}/live`))
    peak = Math.max(peak, await memoryOf(service))
    return answers.length > ANSWERS
  })
  t.comment(`memory ${mib(before)} before, ${mib(peak)} at most`)

  const others = answers.filter(
    ({ status, retryAfter, code }) => status !== 503 || retryAfter !== '1' || code !== 'unavailable'
  )
  t.strictSame(others, [], 'every answer is a proper 503')
  const atOnce = answers.filter(({ milliseconds }) => milliseconds < STATEMENT_MS).length
  t.comment(`${answers.length} refusals, ${atOnce} of them at once`)
  t.ok(atOnce > 0, 'what is above the limit is refused without waiting for the database')
  t.ok(
    live.every((status) => status === 200),
    '/live answers throughout'
  )
  t.ok(peak - before < MEMORY, `memory: ${mib(before)} before, ${mib(peak)} at most`)

  const stopped = stop()
  await holder`rollback`
  holder.release()
  await stopped
  await until(async () => (await alice('GET')).status === 200)
  for (let i = 0; i < 20; i++) t.equal((await alice('GET')).status, 200)
  t.equal(service.err(), '')
})

const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed()} MiB`
