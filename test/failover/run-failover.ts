import { setTimeout as sleep } from 'node:timers/promises'
import { DEADLINE_MS } from '../faults/answers.js'
import { fateOf, isWrite, type Operation } from '../faults/history.js'
import { firstSuccess, Load } from '../faults/load.js'
import { randomOf } from '../faults/random.js'
import { countWrites, endedWell, type Wrong, wrongIn } from '../faults/run-faults.js'
import { PASSWORD, ROLE, replicaOf } from '../faults/system.js'
import { until } from '../support/process.js'
import type { Test } from '../support/tap.js'
import { type Cluster, startCluster, type Times, withAdminConnection } from './cluster.js'
import { type FaultKind, inject, movesPrimary } from './faults.js'
import { Watch } from './watch.js'

const REPLICAS = 2
const WARM_UP_MS = 1_500
/** Time that the service has to recover after a new primary is ready, in milliseconds. */
const SERVICE_MS = 5_000

/** One fault and its durations, in milliseconds. */
export interface Round {
  fault: FaultKind
  /** The longest time in which a replica acknowledged no write. */
  outage: number
  /** From the fault until another node was the primary. */
  detection: number | undefined
  /** From then until the new primary acknowledged a write, which needs a synchronous standby. */
  promotion: number | undefined
  /** From then until every replica acknowledged a write. If the primary stays, from the end of the fault. */
  service: number
  statuses: Record<string, number>
  /** Number of reads that were answered while no write was acknowledged. */
  reads: number
  longest: number
}

export interface Result {
  rounds: Round[]
  acknowledged: number
  indeterminate: number
  wrong: Wrong[]
}

/**
 * Repeatedly takes the primary or its standbys from a service of two replicas under load, and checks all acknowledged
 * writes.
 *
 * @param tolerance allowance for a busy machine, added to the deadlines, in milliseconds
 */
export async function runFailover(
  t: Pick<Test, 'teardown'>,
  options: {
    seed: number
    times: Times
    faults: FaultKind[]
    clients: number
    tolerance: number
    tell: (round: Round) => void
  }
): Promise<Result> {
  const { seed, times, clients, tolerance, tell } = options
  const cluster = await startCluster(t, times)
  const primary = await cluster.primary()
  await withAdminConnection(primary, (sql) =>
    sql.unsafe(`create role ${ROLE} login password '${PASSWORD}'; create table probe (n int)`)
  )
  // Each replica has another order of hosts, so that the order does not matter.
  const random = randomOf(seed)
  const urlOf = (user: string) => {
    const hosts = random.shuffled(cluster.nodes).map(({ clients }) => new URL(clients.url).host)
    return `postgres://${user}@${hosts.join(',')}/postgres?sslmode=disable&target_session_attrs=read-write`
  }
  const replicas = await Promise.all(
    each(() =>
      replicaOf(t, {
        MIGRATION_DATABASE_URL: urlOf('postgres'),
        DATABASE_URL: urlOf(`${ROLE}:${PASSWORD}`)
      })
    )
  )
  const watch = new Watch(cluster.nodes)
  const load = new Load({ clients, seed, apis: replicas.map(({ api }) => api) })
  const wrong: Wrong[] = []
  const rounds: Round[] = []
  for (const fault of options.faults) {
    await cluster.healthy()
    await sleep(WARM_UP_MS)
    const round = await undergo(cluster, watch, load, fault)
    rounds.push(round)
    tell(round)
    if (round.service > SERVICE_MS + tolerance)
      wrong.push({ kind: 'slow recovery', text: `${fault}: ${round.service.toFixed(0)} ms` })
  }
  await Promise.all([load.stop(), watch.stop()])
  await load.listAll()
  wrong.push(...(await endedWell(replicas)), ...wrongIn(load.history, replicas, DEADLINE_MS + tolerance))
  return { rounds, ...countWrites(load.history), wrong }
}

async function undergo(cluster: Cluster, watch: Watch, load: Load, fault: FaultKind): Promise<Round> {
  const { history } = load
  const old = await cluster.primary()
  const began = performance.now()
  const end = await inject(cluster, fault, old)
  let detection: number | undefined
  let promotion: number | undefined
  let readyAt: number
  let isOver: Promise<void>
  if (movesPrimary(fault)) {
    await until(() => watch.next(began, old) !== undefined)
    const { primaryAt, writableAt } = watch.next(began, old) as NonNullable<ReturnType<Watch['next']>>
    detection = primaryAt - began
    promotion = writableAt - primaryAt
    readyAt = writableAt
    // The service must recover without the old primary.
    isOver = recovered(history, readyAt).then(end)
  } else if (fault === 'standbys cut off') {
    await end()
    readyAt = performance.now()
    isOver = Promise.resolve()
  } else {
    // Patroni makes the other standby synchronous. That time is part of the outage.
    readyAt = performance.now()
    isOver = recovered(history, readyAt).then(end)
  }
  await recovered(history, readyAt)
  const recoveredAt = Math.max(...each((replica) => firstSuccess(history, replica, readyAt) as number))
  await isOver
  const met = history.filter((one) => one.began <= recoveredAt && one.ended >= began)
  const statuses: Record<string, number> = {}
  for (const { answer } of met) {
    const status = String(answer?.status ?? 'none')
    statuses[status] = (statuses[status] ?? 0) + 1
  }
  const gaps = each((replica) => gapOf(history, replica, began, recoveredAt))
  const gap = gaps.reduce((a, b) => (b.to - b.from > a.to - a.from ? b : a))
  return {
    fault,
    outage: gap.to - gap.from,
    detection,
    promotion,
    service: recoveredAt - readyAt,
    statuses,
    reads: met.filter(
      (one) => !isWrite(one) && fateOf(one) === 'done' && one.began > gap.from && one.ended < gap.to
    ).length,
    longest: Math.max(...met.map((one) => one.ended - one.began))
  }
}

const each = <T>(use: (replica: number) => T): T[] =>
  Array.from({ length: REPLICAS }, (_, replica) => use(replica))

const recovered = (history: Operation[], time: number) =>
  until(() => each((replica) => firstSuccess(history, replica, time)).every((first) => first !== undefined))

/** The longest time without an acknowledged write of this replica. */
function gapOf(
  history: Operation[],
  replica: number,
  began: number,
  to: number
): { from: number; to: number } {
  const times = history
    .filter((one) => one.replica === replica && isWrite(one) && fateOf(one) === 'done')
    .map(({ ended }) => ended)
    .filter((ended) => ended > began - 1_000 && ended <= to)
    .sort((a, b) => a - b)
  let longest = { from: began, to: began }
  for (const [index, time] of times.slice(1).entries()) {
    const from = times[index] as number
    if (time - from > longest.to - longest.from) longest = { from, to: time }
  }
  return longest
}
