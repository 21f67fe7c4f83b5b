import { Agent, request } from 'node:http'
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
/** Number of clients that read nothing, and the limit for the additional memory of their lists. Each list has 8 MB. */
const UNREAD = 300
const UNREAD_MEMORY = 400 * 2 ** 20
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

t.test('lists of long texts that nobody reads take little memory', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  const service = await (
    await startProcess(t, { JWT_SECRET: SECRET, DATABASE_URL, LOG_LEVEL: 'error' })
  ).ready()
  await sqlClient(t, DATABASE_URL)`
    insert into tasks (user_id, id, title, description, completed)
    select 'alice', gen_random_uuid(), 'long', repeat(${'\u{1f600}'}, 10000), false from generate_series(1, 200)`
  const before = await memoryOf(service)
  const headers = { authorization: `Bearer ${await sign({ sub: 'alice' })}` }
  const statuses: unknown[] = []
  const agent = new Agent()
  t.teardown(() => agent.destroy())
  for (let i = 0; i < UNREAD; i++) {
    // Nothing reads the answer.
    request(`${service.api}/api/alice/tasks`, { agent, headers }, ({ statusCode }) =>
      statuses.push(statusCode)
    )
      .on('error', () => {})
      .end()
  }
  await until(async () => statuses.length === UNREAD)
  const after = await memoryOf(service)
  t.comment(`memory ${mib(before)} before, ${mib(after)} with ${UNREAD} lists`)
  t.ok(after - before < UNREAD_MEMORY, `memory: ${mib(before)} before, ${mib(after)} with the lists`)
  t.ok(statuses.includes(200), 'some lists were sent')
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
