import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { type BenchDatabase, openBenchDatabase } from './database.js'
import { makeUsers, seed, tidy, type Users } from './dataset.js'
import { type LoadGenerator, makeRequests, startLoadGenerator } from './load.js'
import { type OperationName, operations } from './operations.js'
import { type CpuTimes, cpuSeconds, cpuTimes, peakMemory } from './processes.js'
import { type Network, REGIMES, type Regime, startNetwork } from './regimes.js'
import { DEFAULT_POOL, knownServers, type RunningServer, type ServerKind, startServer } from './servers.js'
import {
  type Case,
  type Measurement,
  renderCases,
  renderRegimes,
  summarise,
  toJson,
  whole
} from './summary.js'
import { verify } from './verify.js'

const root = join(import.meta.dirname, '..')

/** V8 goes on compiling the service for 20 to 40 s of load. With 1 s the first cases of a round took up to twice as long. */
const BREAK_IN_SECONDS = 20

const COMPLETE = { operations: Object.keys(operations), rounds: 3, seconds: 5, warmup: 2 }
const QUICK = { operations: ['get', 'list', 'create'], rounds: 3, seconds: 2, warmup: 0.5 }
const IN_REGIMES = { operations: ['get', 'list', 'create', 'mix'], rounds: 2, seconds: 2, warmup: 0.3 }
// The differences are smaller than those between two starts of one program.
const OBSERVED = { operations: ['get', 'mix'], rounds: 7, seconds: 4, warmup: 0.5 }

const stop = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => stop.abort(new Error(`stopped by ${name}`)))
}

async function main(): Promise<void> {
  const plan = await readOptions()
  prepare()
  const database = await openBenchDatabase()
  const generator = startLoadGenerator(stop.signal)
  const sql = postgres(database.url, { max: 1, onnotice: () => {} })
  try {
    const [{ server_version }] = (await sql`show server_version`) as unknown as [{ server_version: string }]
    console.log(`Node ${process.version}, PostgreSQL ${server_version}; filling the table`)
    await seed(sql)
    const bench = { database, sql, generator, users: await makeUsers() }
    report(plan, server_version, await measureAll(plan, bench))
  } finally {
    generator.stop()
    await sql.end()
    await database.close()
  }
}

/** Starts a collector that discards traces. Returns its URL. */
async function startCollector(): Promise<string> {
  const server = createServer((request, response) => request.resume().on('end', () => response.end()))
  await once(server.listen(0, '127.0.0.1').unref(), 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

interface Bench {
  database: BenchDatabase
  sql: postgres.Sql
  generator: LoadGenerator
  users: Users
}

/** @throws Error for an unknown option, server, regime or operation */
async function readOptions() {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      regimes: { type: 'boolean', default: false },
      observability: { type: 'boolean', default: false },
      regime: { type: 'string' },
      servers: { type: 'string' },
      operations: { type: 'string' },
      connections: { type: 'string', default: '50' },
      pool: { type: 'string', default: String(DEFAULT_POOL) },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      warmup: { type: 'string' },
      compare: { type: 'string' }
    }
  })
  const number = (name: 'rounds' | 'seconds' | 'warmup' | 'pool', fallback?: number) => {
    const value = Number(values[name] ?? fallback)
    if (!(value > 0)) throw new Error(`--${name} must be a number above 0`)
    return value
  }
  const chosenFrom = (option: 'servers' | 'regime' | 'operations', known: string[], usual = known) => {
    const names = values[option]?.split(',') ?? usual
    for (const name of names) {
      if (!known.includes(name)) {
        throw new Error(`--${option}: there is no ${name}; there are ${known.join(', ')}`)
      }
    }
    return names
  }

  const inRegimes = values.regimes || values.regime !== undefined
  const preset = presetOf(inRegimes, values)
  const pool = number('pool')
  const collector = values.observability ? await startCollector() : undefined
  const known = knownServers(pool, values.compare, collector)
  const names = chosenFrom('servers', Object.keys(known))
  const servers = new Map(names.map((name) => [name, known[name] as ServerKind]))
  const allRegimes = Object.keys(REGIMES)
  const regimes = chosenFrom('regime', allRegimes, values.regimes ? allRegimes : ['plain'])
  const chosen = chosenFrom('operations', COMPLETE.operations, preset.operations) as OperationName[]
  const connections = values.connections.split(',').map(Number)
  if (!connections.every((count) => Number.isInteger(count) && count > 0)) {
    throw new Error('--connections must be whole numbers above 0, with commas between them')
  }
  const cases = regimes.flatMap((regime) =>
    connections.flatMap((count) =>
      chosen.map((operation): Case => ({ regime, operation, connections: count }))
    )
  )
  const [first = '', ...others] = names
  const usualBaselines = values.observability ? ['ours'] : ['node-http', 'compare']
  const baseline = usualBaselines.find((name) => servers.has(name)) ?? first

  return {
    servers,
    inRegimes,
    cases,
    rounds: number('rounds', preset.rounds),
    seconds: number('seconds', preset.seconds),
    warmup: number('warmup', preset.warmup),
    baselines: inRegimes ? others : [baseline],
    /** True if the run has all results that the documents show. */
    complete:
      (preset === COMPLETE || values.regimes) &&
      [values.servers, values.operations, values.compare, values.regime].every((one) => one === undefined)
  }
}

type Plan = Awaited<ReturnType<typeof readOptions>>

function presetOf(inRegimes: boolean, { observability, quick }: { observability: boolean; quick: boolean }) {
  if (inRegimes) return IN_REGIMES
  if (observability) return OBSERVED
  return quick ? QUICK : COMPLETE
}

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
 * one program differ in speed. It also starts them in another order. Of three equal servers, the first took 1.02 times the
 * CPU of the last for each request of the mix (1.01 to 1.05, six starts). The order of turns is drawn by lot for each case: a
 * create changes the database for the next server.
 */
async function measureAll(plan: Plan, bench: Bench): Promise<Measurement[]> {
  const measurements: Measurement[] = []
  const total = plan.rounds * plan.cases.length * plan.servers.size
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
    for (const [name, kind] of rotated([...plan.servers], round)) {
      stop.signal.throwIfAborted()
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

    let brokenIn: Map<string, RunningServer> | undefined
    for (const [name, regime] of regimes) {
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
        for (const [server, running] of shuffled([...servers])) {
          const measured = measure(plan, one, requests, running, bench)
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

async function measure(
  { seconds, warmup }: Plan,
  one: Case,
  requests: ReturnType<typeof makeRequests>,
  server: RunningServer,
  { database, generator }: Bench
) {
  const now = () => ({
    server: cpuTimes(server.pid),
    postgres: database.pid === undefined ? undefined : cpuTimes(database.pid)
  })
  let before = now()
  let after = before
  const onWindow = (event: 'started' | 'ended') => {
    if (event === 'started') before = now()
    else after = now()
  }
  const options = { url: server.url, connections: one.connections, warmup, seconds, requests }
  const result = await Promise.race([
    generator.drive(options, operations[one.operation], onWindow),
    server.failed
  ])
  const perRequest = (from: CpuTimes | undefined, to: CpuTimes | undefined) => {
    const used = cpuSeconds(from, to)
    return used === undefined ? undefined : (used / result.count) * 1e6
  }
  return {
    ...one,
    ...result,
    serverCpu: perRequest(before.server, after.server),
    postgresCpu: perRequest(before.postgres, after.postgres),
    memory: peakMemory(server.pid)
  }
}

function report(plan: Plan, postgresVersion: string, measurements: Measurement[]): void {
  const labels = new Map([...plan.servers].map(([name, { label }]) => [name, label]))
  const { rounds, seconds } = plan
  const node = process.version
  const cpu = cpus()[0]?.model ?? 'unknown'
  const cores = availableParallelism()
  const tables = summarise(measurements, plan.baselines, labels)
  const [baseline = ''] = plan.baselines
  console.log(`\n${plan.inRegimes ? renderRegimes(tables) : renderCases(tables, baseline)}\n`)
  console.log(`Medians of ${rounds} rounds of ${seconds} s.`)
  if (!plan.inRegimes) console.log(`Ratios to ${labels.get(baseline)}.`)
  console.log(`Node ${node}, PostgreSQL ${postgresVersion}, ${cores} × ${cpu}`)
  if (!plan.complete) return
  const name = `${plan.inRegimes ? 'regimes-' : ''}node-${process.versions.node.split('.')[0]}.json`
  const run = { date: new Date().toISOString(), node, postgres: postgresVersion, cpu, cores, rounds, seconds }
  writeFileSync(join(import.meta.dirname, 'results', name), toJson(run, tables))
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

/** In a random order, each with the same probability (Fisher and Yates). */
function shuffled<T>(items: T[]): T[] {
  for (let last = items.length - 1; last > 0; last--) {
    const drawn = Math.floor(Math.random() * (last + 1))
    const swapped = items[last] as T
    items[last] = items[drawn] as T
    items[drawn] = swapped
  }
  return items
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
