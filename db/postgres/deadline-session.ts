import type { Rows, Statement } from '../driver.js'
import { DatabaseUnavailable } from '../errors.js'
import type { ClosingReason } from '../observations.js'
import { isConflict, isOutage, isReadOnly, isServerError, isStalePlan, isStopped } from '../sqlstate.js'
import type { Delays, Pace } from './durations.js'
import type { DatabaseAddress } from './url.js'

/** One connection to a database. It answers statements in order. */
export interface Connection {
  /** The address of its server. */
  readonly address: DatabaseAddress
  /** False behind a pooler: only the statements of one transaction may be sent without waiting for earlier answers. */
  readonly canPipeline: boolean
  /** Sends a statement without waiting for the answers to earlier ones. */
  query(text: string, parameters: unknown[]): PromiseLike<Rows>
  /**
   * Runs a statement in batches. The next one is fetched when the promise of `onRows` is fulfilled.
   *
   * @param size number of rows of the first batch
   * @param onRows returns the number of rows of the next batch
   */
  cursor(
    text: string,
    parameters: unknown[],
    size: number,
    onRows: (rows: unknown[]) => Promise<number>
  ): PromiseLike<unknown>
  /**
   * Asks the database to cancel the running statement, unless that waits for its synchronous standby. Resolves when the
   * database has got the request, or after a while. Never rejects.
   *
   * @returns true if it waits for its standby
   */
  cancel(): Promise<boolean>
  /** Ends the connection now. */
  destroy(): void
  /** Ends the connection now. The database executes none of the statements behind the running one. */
  reset(): void
  /** Ends the connection when its statements have finished, or after `milliseconds`. */
  end(milliseconds: number): Promise<void>
}

/** Deadline of a statement, in milliseconds. Two statements, or one and a key server that hangs, take less than 5 s. */
export const STATEMENT_MS = 2_000
/** If nothing arrives this long after a cancel request, treat the connection as dead. */
const UNRESPONSIVE_MS = 500
/** A cancel request may arrive this late, and then cancel the connection's next statement. */
const STRAY_CANCEL_MS = 1_000
/** Interval between two checks of a commit that waits for its synchronous standby. */
const STANDBY_CHECK_MS = 1_000
/** Deadlines are checked at this interval, so one can be overrun by this much. After a pause of the process it is more. */
export const TICK_MS = 50
/** A statement that exceeds its cost and the delays by this time is slow: later ones go to other connections. */
const SLOW_MS = 10
/** A retired connection has this long to finish its statements. */
const RETIRE_MS = 1_000

const CLOCK: Statement = {
  text: 'select extract(epoch from clock_timestamp())::float8 * 1000 as ms',
  parameters: []
}

/** Writes that can be cancelled because others wait for their locks. */
export interface Cancellable {
  /** True for a transaction: none of its writes can be retried alone. */
  readonly isTransaction: boolean
}

/** A statement's limits and kind. */
export interface Sending {
  /** Deadline, as `performance.now()`. */
  until: number
  /** Expected duration, in milliseconds. */
  costMs: number
  /** Receives the time until the answer. */
  pace?: Pace
  /** A write may wait for a lock, so statements are queued behind it only if no connection is idle. */
  isWrite: boolean
  /** True if no statement may be queued behind it. */
  isolated?: boolean
  /** The transaction or single write that it belongs to. */
  batch?: Cancellable
  /**
   * True for `begin` and `commit`. If one fails, the connection is closed, because the statements behind it may run outside
   * of their transaction, or in a failed one. A retry of `commit` would succeed without a transaction.
   */
  isBoundary?: boolean
  /** True if it only reads the server's clock. It is never cancelled: a late cancel request could hit the next statement. */
  isClock?: boolean
}

interface Pending {
  until: number
  costMs: number
  isWrite: boolean
  isolated: boolean
  batch: Cancellable | undefined
  isClock: boolean
  /** The time when it was sent, or when the statement before it was answered. */
  sentAt: number
  /** Rejects the request; undefined after the deadline. */
  reject: ((reason: Error) => void) | undefined
  cancelledAt: number | undefined
  /** Set while it waits for its synchronous standby, and is not cancelled: the time of the next check. */
  standbyCheckAt: number | undefined
  /** PostgreSQL committed, but stopped waiting for its synchronous standby. */
  standbyUnconfirmed: boolean
}

export interface SessionEvents {
  /** An answer arrived, so the session may accept more statements. */
  onAnswer(): void
  /** A statement passed its deadline. */
  onTimeout(): void
  onCancel(reason: 'timeout' | 'lock'): void
  onClosed(session: Session, reason: ClosingReason): void
  /** The server refused a write because it is not the primary. */
  onReadOnly(): void
}

/**
 * One connection whose statements have a deadline, which drivers lack. A statement that passes its deadline is answered
 * 503 and cancelled. If the cancel request has no effect, the connection is reset, and statements queued behind it are not
 * executed.
 *
 * A commit that waits for its synchronous standby is not cancelled. It keeps its connection until the wait ends.
 *
 * `tick` checks all deadlines, because a timer for each statement would cost every request time.
 */
export class Session {
  /** Statements without an answer, oldest first. The first one is running, the others are queued behind it. */
  readonly #pending = new Set<Pending>()
  /** Number of those that have passed their deadline. */
  #timedOut = 0
  #backlogMs = 0
  #writes = 0
  #clocks = 0
  #isolated = 0
  #cancelling: Promise<unknown> | undefined
  /** Until this time, a late cancel request may hit another statement. */
  #strayCancelUntil = Number.NEGATIVE_INFINITY
  #idleSince = performance.now()
  #retired: { at: number; reason: ClosingReason } | undefined
  #isClosed = false
  #isFinishing = false
  #isReserved = false

  /** @param delays of all connections to this database */
  constructor(
    readonly connection: Connection,
    private readonly events: SessionEvents,
    private readonly delays: Delays
  ) {}

  get pending(): number {
    return this.#pending.size - this.#clocks
  }

  /**
   * True if the session accepts statements: it is not ending, and runs none that has timed out or is isolated. Behind a
   * pooler it must not run any, not even a reading of the clock.
   */
  get isOpen(): boolean {
    if (!this.connection.canPipeline && this.#pending.size > 0) return false
    return !this.#isReserved && this.#isolated === 0 && this.#timedOut === 0 && !this.isEnding
  }

  /** True while a commit waits for its synchronous standby, beyond its deadline. */
  get awaitsStandby(): boolean {
    const [head] = this.#pending
    return head?.standbyCheckAt !== undefined
  }

  /**
   * Set while cancel requests are on their way, which could arrive late and hit the next statement. Resolves when all have
   * arrived.
   */
  get cancelling(): Promise<unknown> | undefined {
    return this.#cancelling
  }

  get isWriting(): boolean {
    return this.#writes > 0
  }

  get isEnding(): boolean {
    return this.#isClosed || this.#isFinishing || this.#retired !== undefined
  }

  /** The expected time, in milliseconds, until all statements are answered. */
  get backlogMs(): number {
    return this.#backlogMs
  }

  /** True while the running statement takes unusually long. */
  isSlow(now: number): boolean {
    const [head] = this.#pending
    const { roundTrip, eventLoop } = this.delays
    return head !== undefined && now - head.sentAt > SLOW_MS + head.costMs + roundTrip.ms + eventLoop.ms
  }

  /** The time when the running statement was sent, or when the one before it was answered. */
  get runningSince(): number {
    const [head] = this.#pending
    return head?.sentAt ?? Number.POSITIVE_INFINITY
  }

  get isIdle(): boolean {
    return this.#pending.size === 0 && !this.#isReserved
  }

  /** Time since the last answer, in milliseconds; 0 while the session is busy. */
  idleMs(now: number): number {
    return this.isIdle ? now - this.#idleSince : 0
  }

  /** Reads the server's clock, in milliseconds. Resolves with undefined instead of throwing. */
  async clock(now: number, until: number): Promise<number | undefined> {
    try {
      const [row] = await this.send(CLOCK, now, { until, costMs: 0, isWrite: false, isClock: true })
      return (row as { ms: number }).ms
    } catch {
      return undefined
    }
  }

  /** @throws DatabaseUnavailable if the connection fails, or the statement has no answer in time */
  send(statement: Statement, now: number, sending: Sending): Promise<Rows> {
    const isAlone = this.#pending.size === 0
    const query = this.connection.query(statement.text, statement.parameters)
    return new Promise((resolve, reject) => {
      const { until, costMs, pace, isWrite, isolated = false, batch, isClock = false } = sending
      const pending: Pending = {
        until,
        costMs,
        isWrite,
        isolated,
        batch,
        isClock,
        sentAt: now,
        reject,
        cancelledAt: undefined,
        standbyCheckAt: undefined,
        standbyUnconfirmed: false
      }
      this.#pending.add(pending)
      this.#backlogMs += costMs
      if (isWrite) this.#writes++
      if (isClock) this.#clocks++
      if (isolated) this.#isolated++
      const answered = (isDone: boolean) => {
        // `close` has already deleted it.
        if (!this.#pending.delete(pending)) return
        const now = performance.now()
        const { roundTrip, eventLoop } = this.delays
        const took = now - pending.sentAt
        if (isAlone && isDone) roundTrip.measured(Math.max(0, took - costMs), now)
        pace?.answered(took - eventLoop.ms - (isAlone ? roundTrip.ms : 0))
        this.#backlogMs = this.#pending.size === 0 ? 0 : this.#backlogMs - costMs
        if (isWrite) this.#writes--
        if (isClock) this.#clocks--
        if (isolated) this.#isolated--
        if (pending.reject === undefined) this.#timedOut--
        this.#afterAnswer(now)
      }
      query.then(
        (rows) => {
          answered(true)
          if (pending.standbyUnconfirmed) reject(new DatabaseUnavailable('standby'))
          else resolve(rows)
        },
        (error) => {
          const reason = isOutage(error) ? new DatabaseUnavailable('connection', { cause: error }) : error
          // If the driver has failed, it may take answers for those of other statements.
          if (sending.isBoundary || !isServerError(error)) {
            reject(reason)
            return this.close('lost')
          }
          const isWanted = pending.reject !== undefined && pending.cancelledAt === undefined && !isClock
          const isRetried = isWanted && !batch?.isTransaction && !this.isEnding && this.canRetry(error)
          // Before `answered`, which may give the connection to a statement that needs it alone.
          const retry = isRetried ? this.send(statement, now, sending) : undefined
          answered(false)
          if (retry !== undefined) return resolve(retry)
          if (isReadOnly(error)) this.events.onReadOnly()
          reject(reason)
        }
      )
    })
  }

  /** True if a statement was not executed, for a reason outside of itself. It must not belong to a transaction. */
  canRetry(error: unknown): boolean {
    const mayBeCancelled = this.#cancelling !== undefined || performance.now() < this.#strayCancelUntil
    // After a stale plan, the driver prepares it again.
    return isStalePlan(error) || isConflict(error) || (isStopped(error) && mayBeCancelled)
  }

  #afterAnswer(now: number): void {
    if (this.#pending.size === 0) this.#idleSince = now
    // The next statement starts now, so its time begins here.
    else (this.#pending.values().next().value as Pending).sentAt = now
    if (this.#timedOut > 0) this.#cancelTimedOut(now)
    if (!this.isEnding) this.events.onAnswer()
    else if (this.#pending.size === 0 && this.#retired) this.close(this.#retired.reason)
  }

  /** Must be called every `TICK_MS`. */
  tick(now: number): void {
    for (const pending of this.#pending) {
      if (pending.reject === undefined || now < pending.until) continue
      pending.reject(new DatabaseUnavailable('timeout'))
      pending.reject = undefined
      if (!pending.isClock) this.events.onTimeout()
      this.#timedOut++
    }
    if (this.#timedOut > 0) this.#cancelTimedOut(now)
    const retired = this.#retired
    const isOverdue = retired !== undefined && now >= retired.at + RETIRE_MS
    if (isOverdue && !this.#isReserved) this.close(retired.reason)
  }

  /** Cancels the running statement if it has timed out. Timed-out statements behind it wait for their turn. */
  #cancelTimedOut(now: number): void {
    const [head] = this.#pending
    if (head === undefined || head.reject !== undefined) return
    if (head.cancelledAt === undefined) {
      if (now >= (head.standbyCheckAt ?? now)) this.#cancel(head, now, 'timeout')
    } else if (now >= head.cancelledAt + UNRESPONSIVE_MS) this.close('unresponsive')
  }

  #cancel(head: Pending, checkedAt: number, reason: 'timeout' | 'lock'): void {
    // After a pause of the process, the check is for a time long ago.
    const now = Math.max(checkedAt, performance.now())
    head.cancelledAt = now
    if (head.isClock) return
    this.#strayCancelUntil = now + STRAY_CANCEL_MS
    const request = this.connection.cancel().then((isCommitting) => {
      if (!isCommitting) return this.events.onCancel(reason)
      head.cancelledAt = undefined
      head.standbyCheckAt = performance.now() + STANDBY_CHECK_MS
    })
    const all = Promise.all([this.#cancelling, request]).then(() => {
      if (this.#cancelling === all) this.#cancelling = undefined
    })
    this.#cancelling = all
  }

  /**
   * Cancels the running statement if it belongs to this batch.
   *
   * @returns true if it does
   */
  cancelBatch(batch: Cancellable, now: number): boolean {
    const [head] = this.#pending
    if (head?.batch !== batch || head.cancelledAt !== undefined || head.standbyCheckAt !== undefined)
      return false
    this.#cancel(head, now, 'lock')
    return true
  }

  /**
   * Must be called when PostgreSQL reports that a commit did not wait for its synchronous standby. Answers that arrived
   * together are still pending, so it is not known which commit it was. All writes count as not confirmed.
   */
  markStandbyUnconfirmed(): void {
    for (const pending of this.#pending) pending.standbyUnconfirmed ||= pending.isWrite
  }

  /** Reserves the connection for one caller. */
  reserve(): void {
    this.#isReserved = true
  }

  release(now: number): void {
    this.#isReserved = false
    this.#idleSince = now
    if (this.#retired !== undefined) this.close(this.#retired.reason)
  }

  /** Accepts no more statements, and closes when the pending ones are answered. */
  retire(reason: ClosingReason, now: number): void {
    if (this.isIdle) this.close(reason)
    else this.#retired ??= { at: now, reason }
  }

  /** Ends the connection now. Pending statements fail. */
  close(cause: ClosingReason): void {
    if (this.#isClosed) return
    this.#isClosed = true
    // The driver reports the end of a connection that `end` has ended, too.
    const reason = this.#isFinishing && this.#pending.size === 0 ? 'closing' : cause
    const error = new DatabaseUnavailable(reason === 'closing' ? 'closing' : 'connection')
    for (const { reject } of this.#pending) reject?.(error)
    // PostgreSQL logs each reset of an idle connection.
    if (this.#pending.size > 0) this.connection.reset()
    else this.connection.destroy()
    this.#pending.clear()
    this.events.onClosed(this, reason)
  }

  /** @param milliseconds time that pending statements have to finish */
  async end(milliseconds: number): Promise<void> {
    if (this.#isClosed) return
    // The driver would refuse further statements, and the connection would be closed before the others have finished.
    this.#isFinishing = true
    await this.connection.end(milliseconds)
    this.close('closing')
  }
}

/**
 * Computes the times between readings of the server's clock, in milliseconds. Nothing runs between the first two readings.
 * So their difference is the duration of a reading itself. It is subtracted from the other differences, and not returned.
 *
 * @returns undefined if a reading failed
 */
export async function laps(readings: Promise<number | undefined>[]): Promise<number[] | undefined> {
  const times: number[] = []
  for (const time of await Promise.all(readings)) {
    if (time === undefined) return undefined
    times.push(time)
  }
  const [first, ...others] = times.slice(1).map((time, index) => time - (times[index] as number))
  return others.map((lap) => Math.max(0, lap - (first as number)))
}
