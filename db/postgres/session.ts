import type { Rows, Statement } from '../driver.js'
import { DatabaseUnavailable } from '../errors.js'
import type { ClosingReason } from '../observations.js'
import { isOutage, isReadOnly, isStalePlan, isStopped } from '../sqlstate.js'
import type { Delays, Pace } from './pacing.js'
import type { DatabaseAddress } from './url.js'

/** One connection to a database. It answers statements in the order in which they were sent. */
export interface Connection {
  /** Which of the servers it leads to. */
  readonly address: DatabaseAddress
  /** Sends a statement without waiting for the answers to earlier ones. */
  query(text: string, parameters: unknown[]): PromiseLike<Rows>
  /** Runs a statement batch by batch: the database makes the next rows when the promise of `onRows` is fulfilled. */
  cursor(
    text: string,
    parameters: unknown[],
    size: number,
    onRows: (rows: unknown[]) => Promise<void>
  ): PromiseLike<unknown>
  /**
   * Asks the database to cancel the statement that it is running, unless that waits for its synchronous standby. Never
   * rejects.
   *
   * @returns whether it waits for its standby
   */
  cancel(): Promise<boolean>
  /** Ends the connection now. The database drops every statement that it has not read yet. */
  destroy(): void
  /** Ends the connection when its statements have finished, or after `milliseconds`. */
  end(milliseconds: number): Promise<void>
}

/** The deadline of a request's statement: two of them, or one and a hanging key server, stay below 5 s. */
export const STATEMENT_MS = 2_000
/** If nothing arrives this long after a cancel request, treat the connection as dead. */
const SILENCE_MS = 500
/** A cancel request has arrived by then. It names a connection, not a statement, and may come too late for its own. */
const STRAY_CANCEL_MS = 1_000
/** A commit that waits for its synchronous standby is asked after at this interval. */
const ASK_AGAIN_MS = 1_000
/** Deadlines are checked at this interval, so one can be overrun by this much. */
export const TICK_MS = 50
/** A head that has run for this long beyond its cost and the delays is slow: later statements go to other connections. */
const SLOW_MS = 10
/** A retired connection has this long to finish its statements. */
const RETIRE_MS = 1_000

const CLOCK: Statement = {
  text: 'select extract(epoch from clock_timestamp())::float8 * 1000 as ms',
  parameters: []
}

/** Writes that can be cancelled because they hold up others. */
export interface Cancellable {
  /** Whether they are done or undone as one, so that none of them can be sent again by itself. */
  readonly isTransaction: boolean
}

/** What a session has to know of a statement. */
export interface Sending {
  /** When the request must be answered. */
  until: number
  /** How long the statement is expected to run, in milliseconds. */
  costMs: number
  /** Learns after which time it was answered. */
  pace?: Pace
  /** A write may wait for a lock, so others are queued behind it only where no connection is idle. */
  isWrite: boolean
  /** Nothing is queued behind it. */
  isolated?: boolean
  /** What may be cancelled at this statement: a transaction, or a single write. */
  batch?: Cancellable
  /** It only reads the server's clock, so it is never cancelled: a late cancel request could hit the next statement. */
  isClock?: boolean
}

interface Pending {
  until: number
  costMs: number
  isWrite: boolean
  isolated: boolean
  batch: Cancellable | undefined
  isClock: boolean
  /** When it was sent, or the one before it was answered. */
  sentAt: number
  /** Answers the request; undefined once that has happened. */
  reject: ((reason: Error) => void) | undefined
  cancelledAt: number | undefined
  /** It waits for its synchronous standby, so it was not cancelled. Whether it still does is asked again then. */
  askAgainAt: number | undefined
  /** PostgreSQL committed, but stopped waiting for its synchronous standby. */
  standbyUnconfirmed: boolean
}

export interface SessionEvents {
  /** An answer arrived, so the session may have room for more. */
  onAnswer(): void
  /** A statement passed its deadline. */
  onTimeout(): void
  onCancel(reason: 'timeout' | 'lock'): void
  onClosed(session: Session, reason: ClosingReason): void
  /** The server refused a write because it is not the primary. */
  onReadOnly(): void
}

/**
 * One connection with the limit that drivers lack: an answer in time, whatever the database does. A statement that
 * passes its deadline is answered 503 and cancelled. If the cancel request has no effect, the connection is reset, and
 * statements queued behind it are not executed. A commit that waits for its synchronous standby is not cancelled, and
 * keeps its connection for as long as the server says that it does.
 *
 * One clock checks the deadlines of all statements, instead of a timer for each: this is on the path of every request.
 */
export class Session {
  /** Sent and not answered, oldest first: the first one is running, the others are queued behind it. */
  readonly #pending = new Set<Pending>()
  /** How many of those have passed their deadline. */
  #timedOut = 0
  #owedMs = 0
  #writes = 0
  #isolated = 0
  /** Until then, a cancel request that is on its way may hit another statement than the one it was meant for. */
  #strayCancelUntil = Number.NEGATIVE_INFINITY
  #idleSince = performance.now()
  #retired: { at: number; reason: ClosingReason } | undefined
  #isClosed = false
  #isReserved = false

  /** @param delays of all connections to this database */
  constructor(
    readonly connection: Connection,
    private readonly events: SessionEvents,
    private readonly delays: Delays
  ) {}

  get pending(): number {
    return this.#pending.size
  }

  /** Whether the session may get statements: it is not ending, and nothing that may take long is under way. */
  get isOpen(): boolean {
    return !this.#isReserved && this.#isolated === 0 && this.#timedOut === 0 && !this.isEnding
  }

  /** Whether a commit waits for its synchronous standby, beyond its deadline. */
  get awaitsStandby(): boolean {
    const [head] = this.#pending
    return head?.askAgainAt !== undefined
  }

  get isWriting(): boolean {
    return this.#writes > 0
  }

  get isEnding(): boolean {
    return this.#isClosed || this.#retired !== undefined
  }

  /** The expected time, in milliseconds, until all statements are answered. */
  get owedMs(): number {
    return this.#owedMs
  }

  /** True while the running statement takes unusually long. */
  isSlow(now: number): boolean {
    const [head] = this.#pending
    const { roundTrip, eventLoop } = this.delays
    return head !== undefined && now - head.sentAt > SLOW_MS + head.costMs + roundTrip.ms + eventLoop.ms
  }

  /** When the running statement was sent, or the one before it was answered. */
  get runningSince(): number {
    const [head] = this.#pending
    return head?.sentAt ?? Number.POSITIVE_INFINITY
  }

  get isIdle(): boolean {
    return this.#pending.size === 0 && !this.#isReserved
  }

  /** For how many milliseconds the session has had nothing to do. */
  idleMs(now: number): number {
    return this.isIdle ? now - this.#idleSince : 0
  }

  /** The server's clock, in milliseconds, when it comes to this statement; undefined when it does not. Never throws. */
  async clock(now: number, until: number): Promise<number | undefined> {
    try {
      const [row] = await this.send(CLOCK, now, { until, costMs: 0, isWrite: false, isClock: true })
      return (row as { ms: number }).ms
    } catch {
      return undefined
    }
  }

  /** @throws DatabaseUnavailable when the connection fails, or the statement has no answer in time */
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
        askAgainAt: undefined,
        standbyUnconfirmed: false
      }
      this.#pending.add(pending)
      this.#owedMs += costMs
      if (isWrite) this.#writes++
      if (isolated) this.#isolated++
      const answered = (isDone: boolean) => {
        // Deleted already when the session was closed.
        if (!this.#pending.delete(pending)) return
        const now = performance.now()
        const { roundTrip, eventLoop } = this.delays
        const took = now - pending.sentAt
        if (isAlone && isDone) roundTrip.measured(Math.max(0, took - costMs), now)
        pace?.answered(took - eventLoop.ms - (isAlone ? roundTrip.ms : 0))
        this.#owedMs = this.#pending.size === 0 ? 0 : this.#owedMs - costMs
        if (isWrite) this.#writes--
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
          answered(false)
          if (this.#maySendAgain(error, pending)) return resolve(this.send(statement, now, sending))
          if (isReadOnly(error)) this.events.onReadOnly()
          reject(isOutage(error) ? new DatabaseUnavailable('connection', { cause: error }) : error)
        }
      )
    })
  }

  /** Whether a statement failed for a reason that is not its own, without being done. */
  #maySendAgain(error: unknown, { batch, cancelledAt }: Pending): boolean {
    if (this.isEnding || batch?.isTransaction) return false
    // The driver prepares it anew when it is sent again.
    if (isStalePlan(error)) return true
    return isStopped(error) && cancelledAt === undefined && performance.now() < this.#strayCancelUntil
  }

  #afterAnswer(now: number): void {
    if (this.#pending.size === 0) this.#idleSince = now
    // The next one starts to run now, and gets its full time before it counts as slow.
    else (this.#pending.values().next().value as Pending).sentAt = now
    if (this.#timedOut > 0) this.#cancelTimedOut(now)
    if (!this.isEnding) this.events.onAnswer()
    else if (this.#pending.size === 0 && this.#retired) this.close(this.#retired.reason)
  }

  /** To be called every `TICK_MS`. */
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

  /** Cancels the running statement if it has timed out. Those behind it still have their turn. */
  #cancelTimedOut(now: number): void {
    const [head] = this.#pending
    if (head === undefined || head.reject !== undefined) return
    if (head.cancelledAt === undefined) {
      if (now >= (head.askAgainAt ?? now)) this.#cancel(head, now, 'timeout')
    } else if (now >= head.cancelledAt + SILENCE_MS) this.close('unresponsive')
  }

  #cancel(head: Pending, now: number, reason: 'timeout' | 'lock'): void {
    head.cancelledAt = now
    if (head.isClock) return
    this.#strayCancelUntil = now + STRAY_CANCEL_MS
    void this.connection.cancel().then((isCommitting) => {
      if (!isCommitting) return this.events.onCancel(reason)
      head.cancelledAt = undefined
      head.askAgainAt = performance.now() + ASK_AGAIN_MS
    })
  }

  /**
   * Cancels the running statement if it belongs to this batch.
   *
   * @returns whether it did
   */
  cancelBatch(batch: Cancellable, now: number): boolean {
    const [head] = this.#pending
    if (head?.batch !== batch || head.cancelledAt !== undefined || head.askAgainAt !== undefined) return false
    this.#cancel(head, now, 'lock')
    return true
  }

  /** To be called when PostgreSQL says that the running commit did not wait for its synchronous standby. */
  markStandbyUnconfirmed(): void {
    const [head] = this.#pending
    if (head !== undefined) head.standbyUnconfirmed = true
  }

  /** Keeps the connection for one caller alone. */
  reserve(): void {
    this.#isReserved = true
  }

  release(now: number): void {
    this.#isReserved = false
    this.#idleSince = now
    if (this.#retired !== undefined) this.close(this.#retired.reason)
  }

  /** Takes no more statements, and closes when those under way are answered. */
  retire(reason: ClosingReason, now: number): void {
    if (this.isIdle) this.close(reason)
    else this.#retired ??= { at: now, reason }
  }

  /** Ends the connection now; statements under way fail. */
  close(reason: ClosingReason): void {
    if (this.#isClosed) return
    this.#isClosed = true
    const error = new DatabaseUnavailable(reason === 'closing' ? 'closing' : 'connection')
    for (const { reject } of this.#pending) reject?.(error)
    this.#pending.clear()
    this.connection.destroy()
    this.events.onClosed(this, reason)
  }

  /** @param milliseconds how long statements under way may take to finish */
  async end(milliseconds: number): Promise<void> {
    if (this.#isClosed) return
    await this.connection.end(milliseconds)
    this.close('closing')
  }
}

/**
 * How long the server worked between one reading of its clock and the next, in milliseconds, from the second reading on.
 * A reading takes time by itself: as much as lies between the first two, which follow each other. Undefined when a
 * reading failed.
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
