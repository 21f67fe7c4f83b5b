import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { startPostgres } from '../test/support/postgres-server.js'
import { type Service, startProcess, until } from '../test/support/process.js'
import { SECRET } from '../test/support/sign.js'
import { HOARD, HOARDER, startSoakLoad } from './soak-load.js'
import { compare, lineOf, percentile, type Rest, type Sample } from './soak-report.js'

// Checks that the service retains no more after a long time than after a short one: memory, handles, connections.

const SAMPLE_MS = 10_000
const MINUTE_MS = 60_000
/** Time until the service is idle, in milliseconds: an unused connection for streams is closed after 10 seconds. */
const REST_MS = 15_000
/** Share of the steps that may get a 503, because the machine may be busy for a moment. */
const MOST_REFUSED = 0.001

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '30' }, rate: { type: 'string', default: '350' } }
})
const [minutes, rate] = [Number(values.minutes), Number(values.rate)]
if (!(minutes >= 3) || !(rate > 0)) {
  console.error('usage: npm run soak -- [--minutes <number, 3 at least>] [--rate <requests per second>]')
  process.exit(2)
}

const root = join(import.meta.dirname, '..')
execFileSync('npm', ['run', '-s', 'build'], { cwd: root, stdio: 'inherit' })

const ends: (() => unknown)[] = []
try {
  process.exitCode = (await soak()) ? 0 : 1
} finally {
  for (const end of ends.reverse()) await end()
}

async function soak(): Promise<boolean> {
  const scope = { teardown: (end: () => unknown) => ends.push(end) }
  const server = await startPostgres({ fsync: 'on' })
  scope.teardown(() => server.stop())
  const sql = postgres(server.url('postgres'), { max: 1, onnotice: () => {} })
  scope.teardown(() => sql.end({ timeout: 1 }))
  const service = await startProcess(
    scope,
    {
      NODE_ENV: 'production',
      LOG_LEVEL: 'error',
      DATABASE_URL: server.url('postgres'),
      JWT_SECRET: SECRET,
      NODE_OPTIONS: `--import ${pathToFileURL(join(import.meta.dirname, 'soak-gc.mjs'))}`
    },
    { file: join(root, 'dist', 'src', 'server.js') }
  )
  await service.ready()
  let ended = false
  service.process.once('close', () => {
    ended = true
  })
  await seedLongList(sql)

  const load = await startSoakLoad(service.api, rate)
  let began = performance.now()
  const samples: Sample[] = []
  const rests: Rest[] = []
  for (let next = SAMPLE_MS; next <= minutes * MINUTE_MS && !ended; next += SAMPLE_MS) {
    await sleep(began + next - performance.now())
    const sample = await takeSample(service, sql, load.takeLatencies())
    samples.push(sample)
    console.log(`${next / 1000} s: ${lineOf(sample)}`)
    if (next === 2 * MINUTE_MS || next + SAMPLE_MS > minutes * MINUTE_MS) {
      const from = performance.now()
      await load.pause()
      await sleep(REST_MS)
      rests.push(await takeRest(service, sql))
      load.takeLatencies()
      load.resume()
      began += performance.now() - from
    }
  }
  await load.pause()
  const [{ count }] = (await sql`select count(*)::int as count from tasks`) as unknown as [{ count: number }]
  const exit = ended ? undefined : await service.stop()

  const perMinute = MINUTE_MS / SAMPLE_MS
  const { table, passed } = compare(
    { samples: samples.slice(perMinute, 2 * perMinute), rest: rests[0] },
    { samples: samples.slice(-perMinute), rest: rests[1] }
  )
  const requests = [...load.counts.values()].reduce((sum, one) => sum + one, 0)
  console.log(`\n${table}\n`)
  console.log([...load.counts].map(([name, n]) => `${name} ${n}`).join(', '))
  console.log(
    `${requests} steps in ${minutes} minutes, ${load.missed} not begun, ${load.refused} refused, ${load.wrong.length} answers wrong; ${count} tasks at the end; Node ${process.version}`
  )
  for (const wrong of load.wrong.slice(0, 10)) console.log(`wrong: ${wrong}`)
  const logged = service.out().replaceAll(/^heap after collection: \d+\n/gm, '') + service.err()
  if (logged !== '') console.log(`the service wrote: ${logged.slice(0, 2_000)}`)
  if (exit?.code !== 0)
    console.log(`the service ended with ${exit ? (exit.signal ?? exit.code) : 'nobody asking'}`)
  const isRight =
    passed &&
    load.wrong.length === 0 &&
    load.refused <= requests * MOST_REFUSED &&
    logged === '' &&
    exit?.code === 0
  console.log(isRight ? 'PASS' : 'FAIL')
  return isRight
}

async function seedLongList(sql: postgres.Sql): Promise<void> {
  await sql`
    insert into tasks (user_id, id, title, description, completed)
    select ${HOARDER}, gen_random_uuid(), 'Task ' || n, repeat('Kept for later. ', 30), false
    from generate_series(1, ${HOARD}::int) n`
}

async function takeSample(service: Service, sql: postgres.Sql, latencies: number[]): Promise<Sample> {
  const metrics = await (await fetch(`${service.ops}/metrics`)).text()
  const value = (name: string) => {
    const lines = [...metrics.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'))]
    if (lines.length === 0) throw new Error(`/metrics has no ${name}`)
    return lines.reduce((sum, [, number]) => sum + Number(number), 0)
  }
  const [{ connections }] = (await sql`
    select count(*)::int as connections from pg_stat_activity
    where application_name = 'tasks-api'`) as unknown as [{ connections: number }]
  return {
    rss: value('process_resident_memory_bytes'),
    heap: value('nodejs_heap_size_used_bytes'),
    external: value('nodejs_external_memory_bytes'),
    descriptors: value('process_open_fds'),
    handles: value('nodejs_active_handles'),
    connections,
    lag: value('nodejs_eventloop_lag_p99_seconds') * 1000,
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99),
    rate: (latencies.length * 1000) / SAMPLE_MS
  }
}

async function takeRest(service: Service, sql: postgres.Sql): Promise<Rest> {
  const before = service.out().length
  service.process.kill('SIGWINCH')
  const line = () => /^heap after collection: (\d+)$/m.exec(service.out().slice(before))
  await until(() => line() !== null)
  const { descriptors, handles, connections } = await takeSample(service, sql, [])
  return { heap: Number(line()?.[1]), descriptors, handles, connections }
}
