import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { openDatabase } from '../db/client.js'
import { migrate } from '../db/migrate.js'
import { startPostgres } from '../test/support/postgres-server.js'
import { drawChart } from './chart.js'
import { makeUsers, seed, tidy, type Users } from './dataset.js'
import { load, makeRequests } from './load.js'
import { type OperationName, operations } from './operations.js'
import { canPgbench, findPgbench, PGBENCH, PGBENCH_LABEL, pgbench } from './pgbench.js'
import { cpuSeconds, peakMemory } from './processes.js'
import { otherCheckout, type RunningServer, SERVERS, type ServerKind, startServer } from './servers.js'
import { type Measurement, type Results, render, summarise, whole } from './summary.js'
import { verify } from './verify.js'

const root = join(import.meta.dirname, '..')
const resultsFile = join(import.meta.dirname, 'results', 'latest.json')

const HAND_WRITTEN = 'node-http'
const COMPARE = 'compare'

interface Case {
  operation: OperationName
  connections: number
}

const stop = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => stop.abort(new Error(`stopped by ${name}`)))
}

async function main(): Promise<void> {
  const plan = readOptions()
  prepare()
  const database = await openBenchDatabase()
  const sql = postgres(database.url, { max: 1, onnotice: () => {} })
  try {
    const [{ server_version }] = (await sql`show server_version`) as unknown as [{ server_version: string }]
    console.log(`Node ${process.version}, PostgreSQL ${server_version}; filling the table`)
    await createTable(database.url)
    await seed(sql)
    const measurements = await measureAll(plan, database, sql)
    report(plan, server_version, measurements)
  } finally {
    await sql.end()
    await database.close()
  }
}

/** @throws Error for what is not an option, a server or an operation, or cannot run here though it was asked for */
function readOptions() {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      servers: { type: 'string' },
      operations: { type: 'string' },
      connections: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      warmup: { type: 'string' },
      compare: { type: 'string' }
    }
  })
  const { quick } = values
  const number = (name: 'rounds' | 'seconds' | 'warmup', fallback: number) => {
    const value = Number(values[name] ?? fallback)
    if (!(value > 0)) throw new Error(`--${name} must be a number above 0`)
    return value
  }

  const known = new Map<string, ServerKind>(Object.entries(SERVERS))
  if (values.compare !== undefined) known.set(COMPARE, otherCheckout(values.compare))
  const pgbenchProgram = findPgbench()
  known.set(PGBENCH, {
    label: PGBENCH_LABEL,
    command: [],
    missing: () => (pgbenchProgram ? undefined : 'it comes with PostgreSQL (Debian: postgresql-contrib)')
  })

  const usual = quick
    ? ['ours', HAND_WRITTEN, 'express', ...(values.compare === undefined ? [] : [COMPARE])]
    : [...known.keys()]
  const chosen = values.servers?.split(',')
  const servers = new Map<string, ServerKind>()
  for (const name of chosen ?? usual) {
    const kind = known.get(name)
    if (!kind) throw new Error(`--servers: there is no ${name}; there are ${[...known.keys()].join(', ')}`)
    const missing = kind.missing?.()
    if (missing === undefined) servers.set(name, kind)
    else if (chosen) throw new Error(`${name} cannot run here: ${missing}`)
    else console.log(`Without ${name}: ${missing}`)
  }

  const names = values.operations?.split(',') ?? (quick ? ['get', 'list', 'create'] : Object.keys(operations))
  for (const name of names) {
    if (!Object.hasOwn(operations, name)) {
      throw new Error(`--operations: there is no ${name}; there are ${Object.keys(operations).join(', ')}`)
    }
  }
  const connections = (values.connections ?? '50').split(',').map(Number)
  if (!connections.every((count) => Number.isInteger(count) && count > 0)) {
    throw new Error('--connections must be whole numbers above 0, with commas between them')
  }
  const cases = connections.flatMap((count) =>
    names.map((operation): Case => ({ operation: operation as OperationName, connections: count }))
  )
  if (!quick && values.connections === undefined) {
    // How latency and throughput change with the number of clients shows in these three; all would take an hour more.
    const some = names.filter((name) => ['get', 'list', 'mix'].includes(name)) as OperationName[]
    for (const count of [1, 200]) {
      cases.push(...some.map((operation) => ({ operation, connections: count })))
    }
  }

  return {
    servers,
    pgbenchProgram: pgbenchProgram ?? '',
    cases,
    rounds: number('rounds', 3),
    seconds: number('seconds', quick ? 2 : 5),
    warmup: number('warmup', quick ? 0.5 : 2),
    baseline: [HAND_WRITTEN, COMPARE].find((name) => servers.has(name)) ?? [...servers.keys()][0] ?? '',
    /** Whether the run holds everything that the chart shows. */
    complete:
      !quick && chosen === undefined && values.operations === undefined && values.compare === undefined
  }
}

type Plan = ReturnType<typeof readOptions>

function prepare(): void {
  const npm = (...args: string[]) => execFileSync('npm', args, { cwd: root, stdio: 'inherit' })
  if (!existsSync(join(import.meta.dirname, 'node_modules', 'autocannon'))) {
    npm('ci', '--prefix', 'bench', '--no-audit', '--no-fund')
  }
  npm('run', '-s', 'build')
}

interface BenchDatabase {
  url: string
  /** Of the PostgreSQL server, where this machine can see what it costs. */
  pid: number | undefined
  close(): Promise<void>
}

/** A server of our own, or a new database on the one that DATABASE_URL names: what is there is never touched. */
async function openBenchDatabase(): Promise<BenchDatabase> {
  const given = process.env.DATABASE_URL
  if (!given) {
    const server = await startPostgres({ fsync: 'on' })
    return { url: server.url('postgres'), pid: server.process.pid, close: () => server.stop() }
  }
  const name = `tasks_bench_${process.pid}`
  const admin = postgres(given, { max: 1, onnotice: () => {} })
  await admin`create database ${admin(name)}`
  const url = new URL(given)
  url.pathname = `/${name}`
  return {
    url: url.href,
    pid: undefined,
    async close() {
      await admin`drop database ${admin(name)} with (force)`
      await admin.end()
    }
  }
}

async function createTable(url: string): Promise<void> {
  const db = await openDatabase({ kind: 'postgres', url })
  try {
    await db.administer(migrate)
  } finally {
    await db.close()
  }
}

/**
 * Every server runs during the whole round, idle but for its turns, and takes its turn in every case before the next
 * case begins: so the servers are compared within seconds of each other. A new round starts them anew, because two
 * starts of one program are not equally fast either.
 */
async function measureAll(plan: Plan, database: BenchDatabase, sql: postgres.Sql): Promise<Measurement[]> {
  const users = await makeUsers()
  const measurements: Measurement[] = []
  const names = [...new Set(plan.cases.map(({ operation }) => operation))]
  const turns = plan.cases.map((one) => ({ ...one, servers: participants(plan, one) }))
  const total = plan.rounds * turns.reduce((sum, { servers }) => sum + servers.length, 0)
  const began = Date.now()

  for (let round = 1; round <= plan.rounds; round++) {
    const running = new Map<string, RunningServer>()
    try {
      for (const [name, kind] of plan.servers) {
        stop.signal.throwIfAborted()
        if (name === PGBENCH) continue
        const server = await startServer(name, kind, database.url)
        running.set(name, server)
        await named(name, verify(server.url, sql, users, names))
        await named(name, breakIn(server, users, 2 * plan.warmup))
      }
      await tidy(sql)
      for (const [index, turn] of turns.entries()) {
        const operation = operations[turn.operation]
        // The same requests for all.
        const requests = makeRequests(operation, users)
        for (const name of rotated(turn.servers, round + index)) {
          const measured = await named(
            `${name}, ${turn.operation}`,
            measure(plan, turn, requests, running.get(name), database)
          )
          measurements.push({ round, server: name, ...measured })
          if (operation.writes) await tidy(sql)
          const left = ((Date.now() - began) / measurements.length) * (total - measurements.length)
          console.log(
            `[${measurements.length}/${total}, ${minutes(left)} left] round ${round}, ` +
              `${operation.label}, ${turn.connections} conn., ${plan.servers.get(name)?.label}: ${whole(measured.rate)}/s`
          )
        }
      }
    } finally {
      await Promise.all([...running.values()].map((server) => server.stop()))
    }
  }
  return measurements
}

/** Gives the code of a server that was just started some seconds to become compiled, before its first turn. */
async function breakIn(server: RunningServer, users: Users, seconds: number): Promise<void> {
  const requests = makeRequests(operations.mix, users)
  const options = { url: server.url, connections: 50, warmup: seconds, seconds: 0.1, requests }
  await Promise.race([load(options, operations.mix, () => {}, stop.signal), server.failed])
}

const participants = ({ servers }: Plan, { operation }: Case) =>
  [...servers.keys()].filter((name) => name !== PGBENCH || canPgbench(operation))

async function measure(
  { seconds, warmup, pgbenchProgram }: Plan,
  { operation, connections }: Case,
  requests: ReturnType<typeof makeRequests>,
  server: RunningServer | undefined,
  database: BenchDatabase
) {
  const cpu = (pid: number | undefined) => (pid === undefined ? undefined : cpuSeconds(pid))
  const now = () => ({ server: cpu(server?.pid), postgres: cpu(database.pid) })
  let before = now()
  let after = before
  const onWindow = (event: 'started' | 'ended') => {
    if (event === 'started') before = now()
    else after = now()
  }
  const options = { url: server?.url ?? '', connections, warmup, seconds, requests }
  const result = server
    ? await Promise.race([load(options, operations[operation], onWindow, stop.signal), server.failed])
    : await pgbench(pgbenchProgram, database.url, operation, connections, seconds, stop.signal)
  if (!server) after = now()
  const perRequest = (from: number | undefined, to: number | undefined) =>
    from === undefined || to === undefined ? undefined : ((to - from) / result.count) * 1e6
  return {
    operation,
    connections,
    ...result,
    serverCpu: perRequest(before.server, after.server),
    postgresCpu: perRequest(before.postgres, after.postgres),
    memory: server && peakMemory(server.pid)
  }
}

function report(plan: Plan, postgresVersion: string, measurements: Measurement[]): void {
  const labels = new Map([...plan.servers].map(([name, { label }]) => [name, label]))
  const results: Results = {
    date: new Date().toISOString(),
    node: process.version,
    postgres: postgresVersion,
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    rounds: plan.rounds,
    seconds: plan.seconds,
    baseline: plan.baseline,
    tables: summarise(measurements, plan.baseline, labels),
    measurements
  }
  mkdirSync(join(resultsFile, '..'), { recursive: true })
  writeFileSync(resultsFile, `${JSON.stringify(results, null, 2)}\n`)
  console.log(`\n${render(results.tables)}\n`)
  console.log(
    `Medians of ${plan.rounds} rounds of ${plan.seconds} s; ratios to ${labels.get(plan.baseline)}.`
  )
  console.log(`Node ${results.node}, PostgreSQL ${results.postgres}, ${results.cores} × ${results.cpu}`)
  if (plan.complete) drawChart(results)
}

/** Says whose failure it is. */
async function named<T>(name: string, promise: Promise<T>): Promise<T> {
  try {
    return await promise
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}`, { cause: error })
  }
}

function rotated<T>(items: T[], by: number): T[] {
  const start = by % items.length
  return [...items.slice(start), ...items.slice(0, start)]
}

function minutes(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1_000)
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`
}

try {
  await main()
} catch (error) {
  const { message } = (stop.signal.aborted ? stop.signal.reason : error) as Error
  console.error(`\nThe benchmark failed: ${message}`)
  process.exitCode = 1
}
