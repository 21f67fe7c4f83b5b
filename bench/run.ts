import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { drawChart } from './chart.js'
import { type BenchDatabase, openBenchDatabase } from './database.js'
import { makeUsers, seed, tidy, type Users } from './dataset.js'
import { type LoadGenerator, makeRequests, startLoadGenerator } from './load.js'
import { type OperationName, operations } from './operations.js'
import { canPgbench, findPgbench, PGBENCH, PGBENCH_LABEL, pgbench } from './pgbench.js'
import { type CpuTimes, cpuSeconds, cpuTimes, peakMemory } from './processes.js'
import { type Network, REGIMES, type Regime, startNetwork } from './regimes.js'
import {
  observedServers,
  otherCheckout,
  type RunningServer,
  SERVERS,
  type ServerKind,
  startServer
} from './servers.js'
import {
  type Case,
  type Measurement,
  type Results,
  renderCases,
  renderRegimes,
  summarise,
  toJson,
  whole
} from './summary.js'
import { verify } from './verify.js'

const root = join(import.meta.dirname, '..')

const OURS = 'ours'
const HAND_WRITTEN = 'node-http'
/** The hand-written peer again, for a regime with another pool. */
const USUAL_POOL = 'node-http-10'
const COMPARE = 'compare'
const DEFAULT_POOL = 10
/** With a fifth of this, the first cases of a round were up to twice as slow as the same ones later. */
const BREAK_IN_SECONDS = 6

const stop = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => stop.abort(new Error(`stopped by ${name}`)))
}

async function main(): Promise<void> {
  const collector = await startCollector()
  const plan = readOptions(collector.url)
  prepare()
  const database = await openBenchDatabase()
  const generator = startLoadGenerator(stop.signal)
  const sql = postgres(database.url, { max: 1, onnotice: () => {} })
  try {
    const [{ server_version }] = (await sql`show server_version`) as unknown as [{ server_version: string }]
    console.log(`Node ${process.version}, PostgreSQL ${server_version}; filling the table`)
    await seed(sql)
    report(
      plan,
      server_version,
      await measureAll(plan, { database, sql, generator, users: await makeUsers() })
    )
  } finally {
    generator.stop()
    collector.close()
    await sql.end()
    await database.close()
  }
}

/** A collector that discards traces. */
async function startCollector(): Promise<{ url: string; close(): void }> {
  const server = createServer((request, response) => request.resume().on('end', () => response.end()))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const close = () => {
    server.closeAllConnections()
    server.close()
  }
  return { url: `http://127.0.0.1:${port}`, close }
}

interface Bench {
  database: BenchDatabase
  sql: postgres.Sql
  generator: LoadGenerator
  users: Users
}

/** @throws Error for an unknown option, server, regime or operation, or one that cannot run here */
function readOptions(collector: string) {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      regimes: { type: 'boolean', default: false },
      observability: { type: 'boolean', default: false },
      regime: { type: 'string' },
      servers: { type: 'string' },
      operations: { type: 'string' },
      connections: { type: 'string' },
      pool: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      warmup: { type: 'string' },
      compare: { type: 'string' }
    }
  })
  const { observability } = values
  const quick = values.quick || observability
  const inRegimes = values.regimes || values.regime !== undefined
  const usually = <T>(complete: T, quickly: T, regimes: T) =>
    inRegimes ? regimes : quick ? quickly : complete
  const number = (name: 'rounds' | 'seconds' | 'warmup' | 'pool', fallback: number) => {
    const value = Number(values[name] ?? fallback)
    if (!(value > 0)) throw new Error(`--${name} must be a number above 0`)
    return value
  }
  const chosenFrom = (
    option: 'servers' | 'regime' | 'operations',
    known: Iterable<string>,
    usual: string[]
  ) => {
    const all = [...known]
    const names = values[option]?.split(',') ?? usual
    for (const name of names) {
      if (!all.includes(name))
        throw new Error(`--${option}: there is no ${name}; there are ${all.join(', ')}`)
    }
    return names
  }

  const pool = number('pool', DEFAULT_POOL)
  const known = new Map<string, ServerKind>(Object.entries(SERVERS))
  known.set(OURS, { ...SERVERS[OURS], pool })
  const byHand = (size: number) => ({
    ...SERVERS[HAND_WRITTEN],
    pool: size,
    ...(inRegimes && { label: `by hand, pool of ${size}` })
  })
  known.set(HAND_WRITTEN, byHand(pool))
  if (pool !== DEFAULT_POOL) known.set(USUAL_POOL, byHand(DEFAULT_POOL))
  if (values.compare !== undefined) known.set(COMPARE, { ...otherCheckout(values.compare), pool })
  const observed = Object.entries(observedServers(collector))
  for (const [name, kind] of observability ? observed : []) known.set(name, { ...kind, pool })
  const pgbenchProgram = findPgbench()
  known.set(PGBENCH, {
    label: PGBENCH_LABEL,
    command: [],
    missing: () => (pgbenchProgram ? undefined : 'it comes with PostgreSQL (Debian: postgresql-contrib)')
  })

  const few = [OURS, HAND_WRITTEN, USUAL_POOL, COMPARE].filter((name) => known.has(name))
  const servers = new Map<string, ServerKind>()
  for (const name of chosenFrom(
    'servers',
    known.keys(),
    observability
      ? [...observed.map(([name]) => name), OURS, ...few.filter((name) => name === COMPARE)]
      : usually([...known.keys()], [...few, 'express'], few)
  )) {
    const kind = known.get(name) as ServerKind
    const missing = kind.missing?.()
    if (missing === undefined) servers.set(name, kind)
    else if (values.servers) throw new Error(`${name} cannot run here: ${missing}`)
    else console.log(`Without ${name}: ${missing}`)
  }

  const regimes = chosenFrom(
    'regime',
    Object.keys(REGIMES),
    values.regimes ? Object.keys(REGIMES) : ['plain']
  )
  const all = Object.keys(operations)
  const names = chosenFrom(
    'operations',
    all,
    observability ? ['get', 'mix'] : usually(all, ['get', 'list', 'create'], ['get', 'list', 'create', 'mix'])
  ) as OperationName[]
  const connections = (values.connections ?? '50').split(',').map(Number)
  if (!connections.every((count) => Number.isInteger(count) && count > 0)) {
    throw new Error('--connections must be whole numbers above 0, with commas between them')
  }
  const cases = regimes.flatMap((regime) =>
    connections.flatMap((count) =>
      names.map((operation): Case => ({ regime, operation, connections: count }))
    )
  )
  if (!quick && !inRegimes && values.connections === undefined) {
    // These three show latency and throughput by the number of clients. All operations would take an hour more.
    const some = names.filter((name) => ['get', 'list', 'mix'].includes(name))
    for (const count of [1, 200]) {
      cases.push(...some.map((operation) => ({ regime: 'plain', operation, connections: count })))
    }
  }
  const [first = '', ...others] = servers.keys()

  return {
    servers,
    pgbenchProgram: pgbenchProgram ?? '',
    inRegimes,
    cases,
    rounds: number('rounds', 3),
    seconds: number('seconds', usually(5, 2, 1)),
    warmup: number('warmup', usually(2, 0.5, 0.3)),
    baselines: inRegimes
      ? others
      : [['bare', HAND_WRITTEN, COMPARE].find((name) => servers.has(name)) ?? first],
    /** True if the run has all results that the documents show. */
    complete:
      !quick &&
      values.servers === undefined &&
      values.operations === undefined &&
      values.compare === undefined &&
      values.regime === undefined
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

/**
 * Every server runs during the whole round, and is idle between its turns. All servers take their turn in a case
 * before the next case begins, so they are compared within seconds. Each round restarts them, because two starts of
 * one program differ in speed.
 */
async function measureAll(plan: Plan, bench: Bench): Promise<Measurement[]> {
  const measurements: Measurement[] = []
  const total = plan.rounds * plan.cases.reduce((sum, one) => sum + participants(plan, one).length, 0)
  const began = Date.now()
  for (let round = 1; round <= plan.rounds; round++) {
    for await (const measured of measureRound(round, plan, bench)) {
      measurements.push(measured)
      const left = ((Date.now() - began) / measurements.length) * (total - measurements.length)
      const { server, regime, operation, connections, rate } = measured
      console.log(
        `[${measurements.length}/${total}, ${minutes(left)} left] round ${round}, ${REGIMES[regime]?.label}, ` +
          `${operations[operation].label}, ${connections} conn., ${plan.servers.get(server)?.label}: ${whole(rate)}/s`
      )
    }
  }
  return measurements
}

async function* measureRound(round: number, plan: Plan, bench: Bench): AsyncGenerator<Measurement> {
  const { database, sql, users } = bench
  const regimes = new Map(plan.cases.map(({ regime }) => [regime, REGIMES[regime] as Regime]))
  const isFar = ({ network }: Regime) => network !== undefined
  const stops: (() => unknown)[] = []
  const startAll = async (url: string) => {
    const running = new Map<string, RunningServer>()
    for (const [name, kind] of plan.servers) {
      stop.signal.throwIfAborted()
      if (name === PGBENCH) continue
      const server = await startServer(name, kind, url)
      stops.push(() => server.stop())
      running.set(name, server)
      const used = new Set(plan.cases.map(({ operation }) => operation))
      await named(name, verify(server.url, sql, users, [...used]))
    }
    return running
  }
  try {
    let network: Network | undefined
    let near = new Map<string, RunningServer>()
    let far = near
    if (![...regimes.values()].every(isFar)) near = await startAll(database.url)
    if ([...regimes.values()].some(isFar)) {
      network = await startNetwork(database.url)
      stops.push(network.close)
      far = await startAll(network.url)
    }
    await tidy(sql)

    let turn = round
    let brokenIn: Map<string, RunningServer> | undefined
    for (const [name, regime] of regimes) {
      const url = isFar(regime) ? (network as Network).url : database.url
      const servers = isFar(regime) ? far : near
      if (brokenIn !== servers) {
        network?.setDelay(regime.network ?? 0)
        for (const [server, running] of servers) await named(server, breakIn(running, bench))
        brokenIn = servers
      }
      await regime.begin?.(sql, users)
      network?.setDelay(regime.network ?? 0)
      for (const one of plan.cases.filter((other) => other.regime === name)) {
        const operation = operations[one.operation]
        // All servers get the same requests.
        const requests = makeRequests(operation, regime.users?.(users) ?? users, regime.slow?.(users))
        for (const server of rotated(participants(plan, one), turn++)) {
          const measured = measure(plan, one, requests, servers.get(server), url, bench)
          yield { round, server, ...(await named(`${server}, ${name}, ${one.operation}`, measured)) }
          if (operation.writes && !regime.keepsDeadRows) await tidy(sql)
        }
      }
      await regime.end?.(sql)
      await tidy(sql)
    }
  } finally {
    await Promise.all(stops.map((end) => end()))
  }
}

/**
 * Gives V8 some seconds to compile a server's code before its first turn. After minutes without a request V8 drops
 * much of the compiled code, so this is repeated.
 */
async function breakIn({ url, failed }: RunningServer, { generator, users }: Bench): Promise<void> {
  const requests = makeRequests(operations.mix, users)
  const options = { url, connections: 50, warmup: 0, seconds: BREAK_IN_SECONDS, requests }
  await Promise.race([generator.drive(options, operations.mix), failed])
}

const participants = ({ servers }: Plan, { operation }: Case) =>
  [...servers.keys()].filter((name) => name !== PGBENCH || canPgbench(operation))

async function measure(
  { seconds, warmup, pgbenchProgram }: Plan,
  one: Case,
  requests: ReturnType<typeof makeRequests>,
  server: RunningServer | undefined,
  databaseUrl: string,
  { database: { pid }, generator }: Bench
) {
  const { operation, connections } = one
  const cpu = (root: number | undefined) => (root === undefined ? undefined : cpuTimes(root))
  const now = () => ({ server: cpu(server?.pid), postgres: cpu(pid) })
  let before = now()
  let after = before
  const onWindow = (event: 'started' | 'ended') => {
    if (event === 'started') before = now()
    else after = now()
  }
  const options = { url: server?.url ?? '', connections, warmup, seconds, requests }
  const result = server
    ? await Promise.race([generator.drive(options, operations[operation], onWindow), server.failed])
    : await pgbench(pgbenchProgram, databaseUrl, operation, connections, seconds, stop.signal)
  if (!server) after = now()
  const perRequest = (from: CpuTimes | undefined, to: CpuTimes | undefined) => {
    const used = cpuSeconds(from, to)
    return used === undefined ? undefined : (used / result.count) * 1e6
  }
  return {
    ...one,
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
    tables: summarise(measurements, plan.baselines, labels)
  }
  const [baseline = ''] = plan.baselines
  console.log(`\n${plan.inRegimes ? renderRegimes(results.tables) : renderCases(results.tables, baseline)}\n`)
  console.log(`Medians of ${plan.rounds} rounds of ${plan.seconds} s.`)
  if (!plan.inRegimes) console.log(`Ratios to ${labels.get(baseline)}.`)
  console.log(`Node ${results.node}, PostgreSQL ${results.postgres}, ${results.cores} × ${results.cpu}`)
  if (!plan.complete) return
  const name = plan.inRegimes ? `regimes-node-${process.versions.node.split('.')[0]}` : 'latest'
  mkdirSync(join(import.meta.dirname, 'results'), { recursive: true })
  writeFileSync(join(import.meta.dirname, 'results', `${name}.json`), toJson(results))
  if (!plan.inRegimes) drawChart(results)
}

/** Adds the server's name to the error. */
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
