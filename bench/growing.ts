import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { openBenchDatabase } from './database.js'
import { makeUsers, seed, TASKS_PER_USER, tidy } from './dataset.js'
import { makeRequests, startLoadGenerator } from './load.js'
import { operations } from './operations.js'
import { DEFAULT_POOL, knownServers, type ServerKind, startServer } from './servers.js'

// The service on a table of 1,000 tasks and on one of 10,000,000, each on a PostgreSQL of its own.
//
//   npm run build && npm run bench:growing -- [--rows 10000000] [--rounds 9]

const SMALL = 1_000
/** So many that their tasks do not fit into PostgreSQL's own cache. */
const ACTIVE_USERS = 2_000

const { values } = parseArgs({
  options: { rows: { type: 'string', default: '10000000' }, rounds: { type: 'string', default: '9' } }
})
// Both tables need a server of their own.
delete process.env.DATABASE_URL
const stop = new AbortController()
const { ours } = knownServers(DEFAULT_POOL)
const ends: (() => unknown)[] = []

async function prepare(rows: number) {
  const database = await openBenchDatabase()
  ends.push(database.close)
  const sql = postgres(database.url, { max: 1, onnotice: () => {} })
  ends.push(() => sql.end())
  const users = rows / TASKS_PER_USER
  await seed(sql, users)
  const [size] = await sql`
    select pg_size_pretty(pg_table_size('tasks')) as heap, pg_size_pretty(pg_indexes_size('tasks')) as indexes`
  console.log(`${rows} tasks: ${size?.heap}, and ${size?.indexes} of indexes`)
  const server = await startServer(`${rows}`, ours as ServerKind, database.url)
  ends.push(server.stop)
  return {
    rows,
    sql,
    server,
    users: await makeUsers(users, Math.max(2, users / ACTIVE_USERS)),
    rates: [] as number[]
  }
}

async function measure(): Promise<void> {
  const tables = [await prepare(SMALL), await prepare(Number(values.rows))] as const
  const [small, large] = tables
  const generator = startLoadGenerator(stop.signal)
  ends.push(generator.stop)
  for (const name of ['get', 'list', 'create'] as const) {
    const operation = operations[name]
    for (const table of tables) table.rates.length = 0
    for (let round = 0; round <= Number(values.rounds); round++) {
      for (const table of round % 2 === 0 ? tables : [large, small]) {
        const requests = makeRequests(operation, table.users)
        const options = { url: table.server.url, connections: 50, warmup: 0.5, seconds: 2, requests }
        const { rate, p50, p99 } = await generator.drive(options, operation)
        console.log(
          `${name}, ${table.rows}: ${rate.toFixed(0)}/s, p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms`
        )
        // The first round compiles the code and fills the caches.
        if (round > 0) table.rates.push(rate)
        if (operation.writes) await tidy(table.sql)
      }
    }
    const ratios = large.rates.map((rate, at) => rate / (small.rates[at] as number)).sort((a, b) => a - b)
    const text = ratios.map((ratio) => ratio.toFixed(2))
    console.log(
      `${name}: ${large.rows} / ${small.rows} tasks ${text[text.length >> 1]} (${text[0]}–${text.at(-1)})`
    )
  }
}

try {
  await measure()
} finally {
  for (const end of ends.reverse()) await end()
}
