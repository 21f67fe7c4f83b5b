import type { LockTarget, Rows, Statement } from '../driver.js'
import { DatabaseUnavailable } from '../errors.js'
import { isConflict, isStalePlan, isStopped, isUnfinished } from '../sqlstate.js'
import { batchSize, MIN_COMMIT_MS, maxBatches } from './batch-size.js'
import { type Cancellable, laps, type Session } from './deadline-session.js'
import { Pace } from './durations.js'
import type { Pool, Ticket } from './pool.js'

/**
 * If a write or a batch exceeds its expected duration by this time, in milliseconds, it probably waits for a lock. Then it
 * is cancelled, and each of its writes is retried on a connection of its own, so that it delays no others.
 */
const LOCKED_MS = 500

const BEGIN: Statement = { text: 'begin', parameters: [] }
const COMMIT: Statement = { text: 'commit', parameters: [] }

interface Write {
  statement: Statement
  target: LockTarget
  until: number
  queuedAt: number
  /** True after a failed batch: the write must not share a transaction again. */
  isolated: boolean
  resolve(rows: Rows): void
  reject(reason: unknown): void
}

/** Running writes: a transaction, or a single one. */
interface Batch extends Cancellable {
  session: Session
  since: number
  costMs: number
  /** True after a cancel request for one of its statements. */
  isCancelled: boolean
}

/**
 * Group commit: queued writes of different requests share a transaction. So the database waits for its disk, and wakes this
 * process, once for all of them.
 *
 * Each write stays atomic, and is answered after the commit. If one write makes the transaction fail, the others are
 * retried alone.
 *
 * The size and the number of batches depend on the durations of writes and commits (batch-size.ts). If sharing would be slower,
 * each write is sent alone.
 */
export class WriteBatcher {
  #queue: Write[] = []
  readonly #batches = new Set<Batch>()
  /** Number of batches that run, or wait for a connection. */
  #claimed = 0
  /** Number of batches that wait for a connection. */
  #unstarted = 0
  #isScheduled = false
  readonly #write = new Pace()
  readonly #commit = new Pace()

  /** @param isSharing false sends each write in a transaction of its own */
  constructor(
    private readonly pool: Pool,
    private readonly isSharing = true
  ) {}

  /** Number of writes that are not sent yet. */
  get waiting(): number {
    return this.#queue.length
  }

  /** @throws DatabaseUnavailable if the database cannot be reached or does not answer in time */
  run(statement: Statement, target: LockTarget, until: number): Promise<Rows> {
    return new Promise((resolve, reject) => {
      const queuedAt = performance.now()
      this.#queue.push({ statement, target, until, queuedAt, isolated: false, resolve, reject })
      if (this.#isScheduled) return
      this.#isScheduled = true
      // Requests that arrived at the same time join the same batch.
      setImmediate(() => {
        this.#isScheduled = false
        this.#sendAll()
      })
    })
  }

  /** Must be called every `TICK_MS`. */
  tick(now: number): void {
    for (const batch of this.#batches) {
      const { session, since, costMs, isTransaction } = batch
      const delaysOthers = isTransaction || session.pending > 1
      const isLate = now >= (isTransaction ? since : session.runningSince) + costMs + LOCKED_MS
      if (delaysOthers && isLate && session.cancelBatch(batch, now)) batch.isCancelled = true
    }
    this.#sendAll()
  }

  #rejectLate(now: number): void {
    if (!this.#queue.some(({ until }) => now >= until)) return
    const late = this.#queue.filter(({ until }) => now >= until)
    this.#queue = this.#queue.filter(({ until }) => now < until)
    for (const { reject } of late) {
      this.pool.observed.emit('timedOut', 'waiting')
      reject(new DatabaseUnavailable('timeout'))
    }
  }

  /** Refuses the writes that are not sent yet. */
  end(): void {
    for (const { reject } of this.#queue.splice(0)) reject(new DatabaseUnavailable('closing'))
  }

  #sendAll(): void {
    const now = performance.now()
    this.#rejectLate(now)
    const size = this.isSharing ? batchSize(this.#write.ms, this.#commit.ms) : 1
    const serviceMs = size * this.#write.ms + this.#commit.ms
    const maxClaimed = maxBatches(size, serviceMs, this.pool.delays.roundTrip.ms, this.pool.max)
    // Further writes would also wait for the standby, and leave no connection for reads.
    const awaitingStandby = this.pool.awaitingStandby
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      // While writes are too slow to share, one of them is sometimes sent as a batch, to measure it without its commit.
      const isShared = !first.isolated && (size > 1 || this.#write.startsMeasuring(now))
      if (awaitingStandby > 0 && this.#claimed + awaitingStandby >= this.pool.max / 2) return
      if (!isShared) {
        this.#queue.shift()
        this.#runSingle(first)
      } else {
        if (this.#claimed >= maxClaimed || this.#unstarted * size >= this.#queue.length) return
        this.#runBatch(size)
      }
    }
  }

  #runSingle(write: Write): void {
    const { isolated, until, reject } = write
    const costMs = this.#write.ms + this.#commit.ms
    const start = (session: Session, now: number) => void this.#sendSingle(session, write, costMs, now)
    this.pool.run({ costMs, isolated, until, start, reject }, performance.now())
  }

  async #sendSingle(session: Session, write: Write, costMs: number, now: number): Promise<void> {
    const { statement, until, queuedAt, isolated, resolve, reject } = write
    this.pool.observed.emit('sent', now - queuedAt)
    if (isolated) {
      return session.send(statement, now, { until, costMs, isWrite: true, isolated }).then(resolve, reject)
    }
    const batch = { session, since: now, costMs, isTransaction: false, isCancelled: false }
    this.#batches.add(batch)
    try {
      resolve(await session.send(statement, now, { until, costMs, isWrite: true, batch }))
    } catch (error) {
      if (!batch.isCancelled || !isStopped(error)) return reject(error)
      this.#queue.unshift({ ...write, queuedAt: performance.now(), isolated: true })
      this.#sendAll()
    } finally {
      this.#batches.delete(batch)
    }
  }

  /** Requests a connection. The batch is taken from the queue when the connection is free. */
  #runBatch(size: number): void {
    this.#claimed++
    this.#unstarted++
    const ticket: Ticket = {
      costMs: Math.min(size, this.#queue.length) * this.#write.ms + Math.max(this.#commit.ms, MIN_COMMIT_MS),
      isolated: false,
      // Each write has a deadline of its own.
      until: Number.POSITIVE_INFINITY,
      start: (session, now) => {
        this.#unstarted--
        this.#rejectLate(now)
        const { batch: writes, rest } = takeBatch(this.#queue, size)
        this.#queue = rest
        void this.#send(session, writes, size === 1).finally(() => {
          this.#claimed--
          this.#sendAll()
        })
      },
      reject: (reason) => {
        this.#unstarted--
        this.#claimed--
        for (const write of this.#queue.splice(0)) write.reject(reason)
      }
    }
    this.pool.run(ticket, performance.now())
  }

  /** Never throws. */
  async #send(session: Session, writes: Write[], isProbe: boolean): Promise<void> {
    const [first] = writes
    if (first === undefined) return
    const now = performance.now()
    const costMs = writes.length * this.#write.ms + this.#commit.ms
    if (writes.length === 1 && !isProbe) return this.#sendSingle(session, first, costMs, now)
    const batch = { session, since: now, costMs, isTransaction: true, isCancelled: false }
    this.#batches.add(batch)
    for (const { queuedAt } of writes) this.pool.observed.emit('sent', now - queuedAt)
    const outcome = await this.#transact(batch, writes, isProbe)
    this.#batches.delete(batch)
    this.pool.observed.emit('shared', writes.length, outcome.kind)
    if (outcome.kind === 'committed') {
      for (const [index, { resolve, reject }] of writes.entries()) {
        const answer = outcome.answers[index] as PromiseSettledResult<Rows>
        // The write's own deadline may have passed before the commit.
        if (answer.status === 'fulfilled') resolve(answer.value)
        else reject(answer.reason)
      }
    } else if (outcome.kind === 'unknown') {
      for (const { reject } of writes) reject(unknownOutcome(outcome.reason))
    } else {
      if (outcome.failedIndex !== undefined) writes[outcome.failedIndex]?.reject(outcome.reason)
      const others = writes.filter((_, index) => index !== outcome.failedIndex)
      const queuedAt = performance.now()
      this.#queue.unshift(...others.map((write) => ({ ...write, queuedAt, isolated: true })))
    }
  }

  /** Sends the whole transaction without waiting in between, and then waits for every answer. */
  async #transact(batch: Batch, writes: Write[], isProbe: boolean): Promise<Outcome> {
    const { session, since: now } = batch
    const until = Math.max(...writes.map((write) => write.until))
    const isMeasured = isProbe || this.#write.startsMeasuring(now)
    const readings: Promise<number | undefined>[] = []
    const readClock = () => isMeasured && readings.push(session.clock(now, until))
    const begin = session.send(BEGIN, now, { until, costMs: 0, isWrite: true, isBoundary: true })
    readClock()
    readClock()
    const one = { costMs: this.#write.ms, pace: this.#write, isWrite: true, batch }
    const answers = writes.map(({ statement, until }) => session.send(statement, now, { ...one, until }))
    readClock()
    const end = { costMs: this.#commit.ms, pace: this.#commit, isWrite: true, isBoundary: true }
    const commit = session.send(COMMIT, now, { ...end, until })
    const { canPipeline } = session.connection
    // Behind a pooler, nothing may be sent behind the commit.
    const commitMs = canPipeline ? undefined : timeBetween(readings.at(-1), commit)
    if (canPipeline) readClock()
    const [[began, ended], results] = await Promise.all([
      Promise.allSettled([begin, commit]),
      Promise.allSettled(answers)
    ])

    const failedIndex = results.findIndex(({ status }) => status === 'rejected')
    const { reason } = (results[failedIndex] ?? {}) as { reason?: unknown }
    if (began.status === 'rejected') return { kind: 'unknown', reason: began.reason }
    if (ended.status === 'rejected') {
      if (isConflict(ended.reason))
        return { kind: 'rolled back', failedIndex: undefined, reason: ended.reason }
      // A commit that was cancelled may be done: PostgreSQL fails after it, while it logs the duration.
      return { kind: 'unknown', reason: reason ?? ended.reason }
    }
    if (ended.value.command === 'COMMIT') {
      // A cancelled commit stops waiting for its standby.
      if (batch.isCancelled) return { kind: 'unknown', reason: new DatabaseUnavailable('standby') }
      void laps(readings).then(async ([writesMs, commitByClock] = []) => {
        if (writesMs === undefined) return
        this.#write.measured(writesMs / writes.length)
        const ms = commitByClock ?? Number(await commitMs)
        // If this process was busy, it read both answers at the same time.
        if (canPipeline || ms >= MIN_COMMIT_MS) this.#commit.measured(ms)
      })
      return { kind: 'committed', answers: results }
    }
    if (ended.value.command !== 'ROLLBACK') return { kind: 'unknown', reason }
    // Without a failed write, or if the first one could not run, a reading of the clock was the cause.
    if (failedIndex === -1 || isUnfinished(reason) || isStopped(reason) || isStalePlan(reason))
      return { kind: 'rolled back', failedIndex: undefined, reason }
    if (reason instanceof DatabaseUnavailable) return { kind: 'unknown', reason }
    // The first failure must be the cause: statements after it fail because of it.
    return { kind: 'rolled back', failedIndex, reason }
  }
}

/** Resolves with the time between the answers, in milliseconds, or with NaN if the second one is an error. */
async function timeBetween(first: Promise<unknown> | undefined, second: Promise<unknown>): Promise<number> {
  await first
  const answeredAt = performance.now()
  return second.then(
    () => performance.now() - answeredAt,
    () => Number.NaN
  )
}

/** The error of a write whose transaction may or may not be committed. */
function unknownOutcome(reason: unknown): DatabaseUnavailable {
  return reason instanceof DatabaseUnavailable
    ? new DatabaseUnavailable(reason.reason, { cause: reason.cause })
    : new DatabaseUnavailable('connection', { cause: reason })
}

type Outcome =
  | { kind: 'committed'; answers: PromiseSettledResult<Rows>[] }
  /** No write was executed. `failedIndex` is the write that failed; undefined if no single write is the cause. */
  | { kind: 'rolled back'; failedIndex: number | undefined; reason: unknown }
  /** The transaction may or may not be committed. */
  | { kind: 'unknown'; reason: unknown }

/**
 * Splits the queue into the writes of the next transaction, and the rest. A batch locks rows in order of user and task, so
 * that two transactions cannot deadlock. A write that may lock any of a user's tasks has no such order, so it does not
 * share with another write of that user.
 */
export function takeBatch<W extends Pick<Write, 'target' | 'isolated'>>(
  queue: readonly W[],
  size: number
): { batch: W[]; rest: W[] } {
  const batch: W[] = []
  const rest: W[] = []
  const users = new Map<string, LockTarget>()
  for (const write of queue) {
    const { user, task } = write.target
    const other = users.get(user)
    const fits = other === undefined || (other.task !== undefined && task !== undefined)
    if (batch.length === size || write.isolated || !fits) rest.push(write)
    else {
      users.set(user, write.target)
      batch.push(write)
    }
  }
  return { batch: batch.sort(byTarget), rest }
}

function byTarget({ target: a }: { target: LockTarget }, { target: b }: { target: LockTarget }): number {
  if (a.user !== b.user) return a.user < b.user ? -1 : 1
  if (a.task === undefined || b.task === undefined || a.task === b.task) return 0
  return a.task < b.task ? -1 : 1
}
