import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { openDatabase } from '../db/client.js'
import { migrate } from '../db/migrate.js'
import { startPostgres } from '../test/support/postgres-server.js'
import { JWT_SECRET, seed, sign, TASKS_PER_USER, taskId, userId } from './dataset.js'
import { load } from './load.js'
import { type Request, random } from './operations.js'
import { peakMemory } from './processes.js'
import { type RunningServer, SERVERS, startServer } from './servers.js'

// How the service's figures change with the size of the table, the length of a list, and long lists beside it.

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' }
  }
})
const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)]
if (!(rounds >= 1) || !(seconds > 0)) throw new RangeError('--rounds and --seconds must be above 0')

/** Users of the tables that are compared, with 20 tasks each: 1,000, 100,000 and 1,000,000 rows. */
const SIZES = [50, 5_000, 50_000]
const LENGTHS = [1, 20, 100, 200, 201, 1_000, 10_000, 100_000]
const LONG = 100_000
const CLIENTS = 20

const never = new AbortController().signal
const median = (numbers: number[]) => percentile(numbers, 0.5)
function percentile(numbers: number[], share: number): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

const ends: (() => unknown)[] = []
execFileSync('npm', ['run', '-s', 'build'], { cwd: join(import.meta.dirname, '..'), stdio: 'inherit' })
try {
  const server = await startPostgres({ fsync: 'on' })
  ends.push(() => server.stop())
  const admin = postgres(server.url('postgres'), { max: 1, onnotice: () => {} })
  ends.push(() => admin.end())
  const database = async (name: string, users: number): Promise<string> => {
    await admin`create database ${admin(name)}`
    const url = server.url(name)
    const db = await openDatabase({ kind: 'postgres', url })
    await db.administer(migrate)
    await db.close()
    const sql = postgres(url, { max: 1, onnotice: () => {} })
    await seed(sql, users)
    await sql.end()
    return url
  }
  await compareSizes(database)
  const url = await database('lists', 5_000)
  await measureLengths(url)
  await measureLongLists(url)
} finally {
  for (const end of ends.reverse()) await end()
}

async function service(url: string): Promise<RunningServer> {
  const started = await startServer('ours', SERVERS.ours, url)
  ends.push(() => started.stop())
  return started
}

/** Requests of some 50 users all over the table: of one task each, or of their lists. */
async function requests(users: number, of: 'get' | 'list'): Promise<Request[]> {
  const some = await Promise.all(
    Array.from({ length: 50 }, async (_, i) => {
      const number = Math.floor(((i + 1) * users) / 50)
      return { number, authorization: `Bearer ${await sign(JWT_SECRET, userId(number))}` }
    })
  )
  return Array.from({ length: 5_000 }, () => {
    const { number, authorization } = some[random(some.length)] as (typeof some)[0]
    // Of the oldest tasks: ids are made from the number of all users, which differs.
    const path = `/api/${userId(number)}/tasks${of === 'get' ? `/${taskId(number, 0)}` : ''}`
    return { method: 'GET', path, headers: { authorization } }
  })
}

async function compareSizes(database: (name: string, users: number) => Promise<string>): Promise<void> {
  const tables = []
  for (const users of SIZES) {
    const { url } = await service(await database(`rows_${users}`, users))
    tables.push({ users, url, get: await requests(users, 'get'), list: await requests(users, 'list') })
  }
  const operation = { label: '', statuses: [200], writes: false, request: () => ({}) as Request }
  console.log(
    '\n| rows in the table | get | ratio | list of 20 | ratio |\n| ---: | ---: | --- | ---: | --- |'
  )
  const rates = tables.map(() => ({ get: [] as number[], list: [] as number[] }))
  // The first round is only to have everything compiled and in memory.
  for (let round = 0; round <= rounds; round++) {
    for (const of of ['get', 'list'] as const) {
      for (const index of tables.keys()) {
        const turn = (index + round) % tables.length
        const table = tables[turn] as (typeof tables)[0]
        const options = { url: table.url, connections: 50, warmup: 0.5, seconds, requests: table[of] }
        const { rate } = await load(options, operation, () => {}, never)
        if (round > 0) rates[turn]?.[of].push(rate)
      }
    }
  }
  for (const [index, { users }] of tables.entries()) {
    const cells = (['get', 'list'] as const).map((of) => {
      const [own, first] = [rates[index]?.[of] as number[], rates[0]?.[of] as number[]]
      const ratios = own.map((rate, round) => rate / (first[round] as number))
      const [low, high] = [Math.min(...ratios), Math.max(...ratios)]
      return `${median(own).toFixed(0)}/s | ${median(ratios).toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`
    })
    console.log(`| ${(users * TASKS_PER_USER).toLocaleString('en')} | ${cells.join(' | ')} |`)
  }
}

/** Gives a user so many tasks, of about 230 bytes in JSON. */
async function hoard(sql: postgres.Sql, user: string, count: number): Promise<void> {
  await sql`
    insert into tasks (user_id, id, title, description, completed)
    select ${user}, gen_random_uuid(), 'Task ' || n || ' of many', null, false
    from generate_series(1, ${count}::int) n`
}

interface Answer {
  milliseconds: number
  first: number
  bytes: number
}

async function get(url: string, path: string, authorization: string): Promise<Answer> {
  const from = performance.now()
  const sent = request(`${url}${path}`, { headers: { authorization } }).end()
  const [response] = (await once(sent, 'response')) as [import('node:http').IncomingMessage]
  if (response.statusCode !== 200) throw new Error(`${path} answered ${response.statusCode}`)
  let first = 0
  let bytes = 0
  for await (const chunk of response) {
    first ||= performance.now() - from
    bytes += chunk.length
  }
  return { milliseconds: performance.now() - from, first, bytes }
}

async function measureLengths(url: string): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  const server = await service(url)
  for (const length of LENGTHS) await hoard(sql, `hoarder-${length}`, length)
  await sql`vacuum (analyze) tasks`
  await sql.end()
  console.log(
    '\n| tasks in the list | first bytes | whole | per task | size |\n| ---: | ---: | ---: | ---: | ---: |'
  )
  for (const length of LENGTHS) {
    const user = `hoarder-${length}`
    const authorization = `Bearer ${await sign(JWT_SECRET, user)}`
    const ask = () => get(server.url, `/api/${user}/tasks`, authorization)
    const answers: Answer[] = []
    const count = length < 1_000 ? 200 : 5
    for (let i = 0; i < count; i++) await ask()
    for (let i = 0; i < count; i++) answers.push(await ask())
    const [whole, first] = [median(answers.map((a) => a.milliseconds)), median(answers.map((a) => a.first))]
    console.log(
      `| ${length.toLocaleString('en')} | ${first.toFixed(1)} ms | ${whole.toFixed(1)} ms | ${((whole * 1000) / length).toFixed(1)} µs | ${((answers[0] as Answer).bytes / 1e6).toFixed(2)} MB |`
    )
  }
  await server.stop()
}

/** Point reads of others, each client with one under way and a pause after it, while lists of `LONG` tasks are read. */
async function measureLongLists(url: string): Promise<void> {
  const user = `hoarder-${LONG}`
  const authorization = `Bearer ${await sign(JWT_SECRET, user)}`
  const points = await requests(5_000, 'get')
  console.log(
    '\n| long lists at once | others’ get: p50 | p99 | first bytes of a list, median | lists read | memory, at most |\n| ---: | ---: | ---: | ---: | ---: | ---: |'
  )
  for (const lists of [0, 4, 20]) {
    const server = await service(url)
    const latencies: number[] = []
    const firsts: number[] = []
    let counting = false
    let over = false
    const point = async () => {
      while (!over) {
        const { path, headers } = points[random(points.length)] as Request
        const { milliseconds } = await get(server.url, path, headers.authorization as string)
        if (counting) latencies.push(milliseconds)
        await sleep(50)
      }
    }
    const list = async () => {
      while (!over) {
        const answer = await get(server.url, `/api/${user}/tasks`, authorization)
        if (counting) firsts.push(answer.first)
      }
    }
    const loops = [...Array.from({ length: CLIENTS }, point)]
    await sleep(2_000)
    loops.push(...Array.from({ length: lists }, list))
    await sleep(2_000)
    counting = true
    await sleep(15_000)
    over = true
    await Promise.all(loops)
    const first = lists === 0 ? '' : `${median(firsts).toFixed(0)} ms`
    console.log(
      `| ${lists} | ${median(latencies).toFixed(1)} ms | ${percentile(latencies, 0.99).toFixed(1)} ms | ${first} | ${firsts.length} | ${peakMemory(server.pid)?.toFixed(0)} MiB |`
    )
    await server.stop()
  }
}
