import { setTimeout as sleep } from 'node:timers/promises'
import type { Transport } from '../support/databases.js'
import { until } from '../support/process.js'
import type { Test } from '../support/tap.js'
import { checkAnswers, DEADLINE_MS } from './answers.js'
import { check } from './checker.js'
import { fateOf, isWrite, type Operation } from './history.js'
import { inject } from './inject.js'
import { Load } from './load.js'
import { type Ends, LongLists } from './long-lists.js'
import { type Outcome, outcomeOf, recoveryOf } from './outcome.js'
import { type Fault, type FaultKind, faultKindsOver, schedule } from './schedule.js'
import {
  connectionsOf,
  downtimesOf,
  POOL,
  type Replica,
  ROLE,
  type System,
  startEmbedded,
  startSystem
} from './system.js'

type Scope = Pick<Test, 'teardown'>

export interface Wrong {
  /** For example `lost` or `late`. */
  kind: string
  text: string
}

export interface Result {
  /** The fault's outcomes. */
  title: string
  seed: number
  outcomes: Outcome[]
  /** Number of long lists by their end. */
  longLists: Ends
  /** Number of acknowledged writes, and of those with an unknown result. */
  acknowledged: number
  indeterminate: number
  wrong: Wrong[]
}

const REPLICAS = 2
const WARM_UP_MS = 1_500
/** Longest wait for a recovery before the next fault, in milliseconds. */
const MAX_RECOVERY_MS = 30_000
/** Time that the service has to close surplus connections, in milliseconds. */
const CONNECTIONS_MS = 10_000
const MAX_CONNECTIONS = REPLICAS * POOL

const NAMES: Record<Transport, string> = {
  plain: 'PostgreSQL over plain text',
  tls: 'PostgreSQL over TLS (verify-full)'
}

/**
 * Injects one fault after another into a service of two replicas under load, and checks the history.
 *
 * @param kinds kinds of faults; all possible ones by default
 * @param tolerance allowance for a busy machine, added to the deadline of answers and recoveries, in milliseconds
 * @param longest limit for the duration of a fault, in milliseconds
 * @param goesOn called before each fault with the number of faults so far; false ends the run
 * @param tell called with each fault's outcome
 */
export async function runFaults(
  t: Scope,
  options: {
    seed: number
    transport: Transport
    kinds?: FaultKind[]
    clients: number
    tolerance: number
    longest: number
    goesOn: (faults: number) => boolean
    tell?: (outcome: Outcome) => void
  }
): Promise<Result> {
  const { seed, transport, kinds = faultKindsOver(transport), clients, longest, goesOn } = options
  const { tolerance, tell = () => {} } = options
  const latest = DEADLINE_MS + tolerance
  const system = await startSystem(t, REPLICAS, transport)
  const lists = await LongLists.start(system, seed)
  const load = new Load({ clients, seed, apis: system.replicas.map(({ api }) => api) })
  await sleep(WARM_UP_MS)
  const wrong: Wrong[] = []
  const outcomes: Outcome[] = []
  for (const fault of schedule(seed, kinds, REPLICAS, longest)) {
    if (!goesOn(outcomes.length)) break
    const outcome = await undergo(system, load, fault)
    outcomes.push(outcome)
    tell(outcome)
    const what = `${fault.kind}, the ${outcomes.length}. fault`
    if (outcome.recovery > latest)
      wrong.push({ kind: 'slow recovery', text: `${what}: ${outcome.recovery.toFixed(0)} ms` })
    const after = await settled(system)
    if (after.length > MAX_CONNECTIONS) {
      const text = `${what}: ${after.length}, more than ${MAX_CONNECTIONS}\n  ${after.join('\n  ')}`
      wrong.push({ kind: 'too many connections', text })
    }
    await sleep(fault.pause)
  }
  await Promise.all([load.stop(), lists.stop()])
  await untilQuiet(system)
  await load.listAll()
  wrong.push(...(await endedWell(system.replicas)), ...wrongIn(load.history, system.replicas, latest))
  const late = checkAnswers(lists.operations, downtimesOf(system.replicas), latest)
  wrong.push(...late.map((text) => ({ kind: 'answer', text })))
  wrong.push(...lists.wrong.map((text) => ({ kind: 'long list', text })))
  const title = `${NAMES[transport]}, ${outcomes.length} faults`
  return { title, seed, outcomes, longLists: lists.ends, ...countWrites(load.history), wrong }
}

/**
 * Repeatedly kills a service with its embedded database under load, and checks the history.
 *
 * @param kills number of kills
 */
export async function runEmbedded(
  t: Scope,
  options: { seed: number; clients: number; tolerance: number; kills: number }
): Promise<Result> {
  const { seed, clients, tolerance, kills } = options
  const replica = await startEmbedded(t)
  const load = new Load({ clients, seed, apis: [replica.api] })
  for (let kill = 0; kill < kills; kill++) {
    await sleep(300 + ((seed + kill * 379) % 1_000))
    await replica.stop('SIGKILL')
    await replica.start()
  }
  await sleep(300)
  await load.stop()
  await load.listAll()
  const wrong = [
    ...(await endedWell([replica])),
    ...wrongIn(load.history, [replica], DEADLINE_MS + tolerance)
  ]
  const title = `embedded database, ${kills} × kill -9`
  return { title, seed, outcomes: [], longLists: {}, ...countWrites(load.history), wrong }
}

async function undergo(system: System, { history }: Load, fault: Fault): Promise<Outcome> {
  const began = performance.now()
  await inject(system, fault)
  const ended = performance.now()
  let recovery: number | undefined
  while (recovery === undefined && performance.now() < ended + MAX_RECOVERY_MS) {
    await sleep(20)
    recovery = recoveryOf(history, system.replicas.length, ended)
  }
  return outcomeOf(history, fault, { began, ended, recovery: recovery ?? Number.POSITIVE_INFINITY })
}

/** Returns the open connections when there are no more than allowed, or after a while. */
async function settled(system: System): Promise<string[]> {
  const end = performance.now() + CONNECTIONS_MS
  for (;;) {
    const connections = await connectionsOf(system)
    if (connections.length <= MAX_CONNECTIONS || performance.now() > end) return connections
    await sleep(100)
  }
}

/** Waits until the database runs no statement whose client has no answer yet. */
async function untilQuiet({ withAdminConnection }: System): Promise<void> {
  await until(async () => {
    const active = await withAdminConnection(
      (sql) => sql`
        select from pg_stat_activity where usename = ${ROLE} and state <> 'idle'`
    )
    return active.length === 0
  })
}

/** Stops the load and the service. Returns the violations in their ends. */
export async function endedWell(replicas: Replica[]): Promise<Wrong[]> {
  await Promise.all(replicas.map((replica) => replica.stop('SIGTERM')))
  return replicas.flatMap(({ failures }) => failures.map((text) => ({ kind: 'process', text })))
}

export function wrongIn(history: Operation[], replicas: Replica[], latest: number): Wrong[] {
  const answers = checkAnswers(history, downtimesOf(replicas), latest)
  return [...answers.map((text) => ({ kind: 'answer', text })), ...check(history)]
}

export function countWrites(history: Operation[]): { acknowledged: number; indeterminate: number } {
  const fates = history.filter(isWrite).map(fateOf)
  const count = (wanted: string) => fates.filter((fate) => fate === wanted).length
  return { acknowledged: count('done'), indeterminate: count('unknown') }
}
