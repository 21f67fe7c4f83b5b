import { Unavailable } from '../src/errors.js'
import { isOutage, isReadOnly, isStopped, isUnfinished } from './outage.js'

export interface Statement {
  text: string
  parameters: unknown[]
}

/** `command` is what PostgreSQL says that it did. */
export type Rows = unknown[] & { command?: string }

/** One connection to a database, which answers statements in the order in which they were sent. */
export interface Connection {
  /** Another number for each session with the server: a connection that was lost comes back by itself. */
  session(): number
  /** Sends a statement without waiting for the answers to earlier ones. */
  query(text: string, parameters: unknown[]): PromiseLike<Rows>
  /** Asks the database to stop working on this query. Nothing happens when it is not the one that it works on. */
  cancel(query: PromiseLike<Rows>): void
  /** Ends the connection now. What is under way fails, and what the database has not yet read is not done. */
  destroy(): void
  /** Ends the connection when what is under way has finished, or after `milliseconds`. */
  end(milliseconds: number): Promise<void>
}

/** How long a request waits for a statement: two of them, or one and a key server that hangs, stay below 5 s. */
export const STATEMENT_MS = 2_000
/** When a connection stays silent for this time after its statement was cancelled, nobody is at its other end. */
const SILENCE_MS = 500
/** How often the clock looks: so much later than at its deadline a statement may be given up. */
export const TICK_MS = 50
/** What is under way on a connection that is replaced has this long to finish. */
const REPLACED_MS = 1_000

const BEGIN: Statement = { text: 'begin', parameters: [] }
const COMMIT: Statement = { text: 'commit', parameters: [] }

/** Nothing of a transaction was done. */
export class RolledBack {
  /**
   * @param culprit which of its statements was wrong, from 0; undefined when none was, and each may be tried again
   * @param reason what that statement failed with
   */
  constructor(
    readonly culprit: number | undefined,
    readonly reason: unknown
  ) {}
}

/** A transaction that is under way. */
interface Transaction {
  stopped: boolean
}

interface Sent {
  query: PromiseLike<Rows>
  /** Of which it is a part that may be stopped. */
  transaction: Transaction | undefined
  until: number
  /** Answers the request; undefined once that was done. */
  giveUp: ((reason: Error) => void) | undefined
  cancelled: number | undefined
  /** Done, but not safe from the loss of the server. */
  isUnsafe: boolean
}

/**
 * A connection, and those that take its place, with the limit that drivers lack: an answer in time, whatever the
 * database does. When the time is over the statement is cancelled, and when that has no effect the connection is
 * destroyed.
 *
 * One clock ticks for all statements instead of a timer for each: this is on the path of every request.
 */
export class Lane {
  #connection: Connection | undefined
  /** What the database has not answered, in the order in which it was sent. */
  #sent = new Set<Sent>()
  /** When the connection last said something, or was first given something to say. */
  #heard = 0
  /** How many of those have nobody waiting for them any more. */
  #givenUp = 0

  /**
   * @param connect its parameter is to be called when what the database works on will be acknowledged too early
   * @param onUseless called when the server of a connection takes no changes, or nobody seems to be at its other end
   */
  constructor(
    private readonly connect: (onUnsafe: () => void) => Connection,
    private readonly onUseless: () => void = () => {}
  ) {}

  /** How many statements the database has not answered. */
  get waiting(): number {
    return this.#sent.size
  }

  /** Whether it owes an answer that came too late to be of use, so that more may. */
  get isStuck(): boolean {
    return this.#givenUp > 0
  }

  /** For how long the connection has owed an answer, in milliseconds. */
  heldUp(now: number): number {
    return this.#sent.size === 0 ? 0 : now - this.#heard
  }

  /**
   * @param milliseconds the deadline
   * @throws Unavailable when the database cannot be reached or does not answer in time
   */
  run(statement: Statement, now: number, milliseconds: number): Promise<Rows> {
    return this.#send(statement, now, milliseconds)
  }

  #open(): Connection {
    const under = this.#sent
    return this.connect(() => {
      const [first] = under
      if (first !== undefined) first.isUnsafe = true
    })
  }

  #send(
    { text, parameters }: Statement,
    now: number,
    milliseconds: number,
    transaction?: Transaction
  ): Promise<Rows> {
    this.#connection ??= this.#open()
    if (this.#sent.size === 0) this.#heard = now
    const query = this.#connection.query(text, parameters)
    return new Promise((resolve, reject) => {
      const until = now + milliseconds
      const sent: Sent = { query, transaction, until, giveUp: reject, cancelled: undefined, isUnsafe: false }
      this.#sent.add(sent)
      query.then(
        (rows) => {
          this.#answered(sent)
          if (sent.isUnsafe) reject(new Unavailable())
          else resolve(rows)
        },
        (error) => {
          this.#answered(sent)
          if (isReadOnly(error)) this.onUseless()
          reject(isOutage(error) ? new Unavailable({ cause: error }) : error)
        }
      )
    })
  }

  /**
   * Runs statements as one transaction, sent as a whole.
   *
   * @param milliseconds the deadline
   * @returns the rows of each
   * @throws RolledBack when nothing was done, and that is not the database's state
   * @throws Unavailable when the database cannot be reached, does not answer in time, or cannot do it now: what was done
   *   may not be known then
   */
  async transact(statements: Statement[], now: number, milliseconds: number): Promise<Rows[]> {
    this.#connection ??= this.#open()
    const connection = this.#connection
    const transaction: Transaction = { stopped: false }
    const begin = this.#send(BEGIN, now, milliseconds).then(() => connection.session())
    const answers = statements.map((statement) => this.#send(statement, now, milliseconds, transaction))
    const commit = this.#send(COMMIT, now, milliseconds).then(({ command }) => ({
      command,
      session: connection.session()
    }))
    const [[began, ended], results] = await Promise.all([
      Promise.allSettled([begin, commit]),
      Promise.allSettled(answers)
    ])

    const culprit = results.findIndex(({ status }) => status === 'rejected')
    const { reason } = (results[culprit] ?? {}) as { reason?: unknown }
    // Another session would mean that the connection was lost, and some of it ran outside the transaction.
    const isKnown =
      began.status === 'fulfilled' && ended.status === 'fulfilled' && ended.value.session === began.value
    if (!isKnown) throw new Unavailable({ cause: [began, ...results, ended].find(isRejected)?.reason })

    if (ended.value.command === 'COMMIT') {
      // A commit that is told to stop does not wait for the standby that it should wait for.
      if (transaction.stopped) throw new Unavailable()
      return results.map((result) => (result as PromiseFulfilledResult<Rows>).value)
    }
    if (isStopped(reason)) throw new RolledBack(undefined, reason)
    // Only what follows a failure is refused for following it. When none came before, postgres.js has kept the failure to
    // itself, and tried that statement once more: outside the transaction.
    if (culprit === -1 || reason instanceof Unavailable || isUnfinished(reason))
      throw new Unavailable({ cause: reason })
    throw new RolledBack(culprit, reason)
  }

  /** Stops the transaction that the database works on. It fails with RolledBack, but not when it is about to end. */
  stopTransaction(now: number): void {
    const [first] = this.#sent
    if (first?.transaction === undefined || first.cancelled !== undefined) return
    first.transaction.stopped = true
    first.cancelled = now
    this.#connection?.cancel(first.query)
  }

  #answered(sent: Sent): void {
    // Not there: the connection was destroyed before.
    if (!this.#sent.delete(sent)) return
    this.#heard = performance.now()
    if (sent.giveUp === undefined) this.#givenUp--
    if (this.#givenUp > 0) this.#stopFirst(this.#heard)
  }

  /** To be called every `TICK_MS`. */
  tick(now: number): void {
    for (const sent of this.#sent) {
      if (sent.giveUp === undefined || now < sent.until) continue
      sent.giveUp(new Unavailable())
      sent.giveUp = undefined
      this.#givenUp++
    }
    if (this.#givenUp > 0) this.#stopFirst(now)
  }

  /** Stops the statement that the database works on, when nobody waits for it. Those behind it have their turn later. */
  #stopFirst(now: number): void {
    const [first] = this.#sent
    if (first === undefined || first.giveUp !== undefined) return
    if (first.cancelled === undefined) {
      first.cancelled = now
      this.#connection?.cancel(first.query)
    } else if (now - first.cancelled >= SILENCE_MS) {
      this.#destroy()
      this.onUseless()
    }
  }

  #destroy(): void {
    giveUpAll(this.#sent)
    this.#sent.clear()
    this.#givenUp = 0
    this.#connection?.destroy()
    this.#connection = undefined
  }

  /** Takes another connection for what comes; what is under way has `REPLACED_MS` to finish. */
  renew(): void {
    const sent = this.#sent
    // Not left to the driver, which forgets some of what it could not send.
    void this.#connection?.end(REPLACED_MS).then(() => giveUpAll(sent))
    this.#connection = undefined
    this.#sent = new Set()
    this.#givenUp = 0
  }

  /** @param milliseconds how long what is under way has to finish */
  async end(milliseconds: number): Promise<void> {
    await this.#connection?.end(milliseconds)
    giveUpAll(this.#sent)
  }
}

const isRejected = (result: PromiseSettledResult<unknown>) => result.status === 'rejected'

function giveUpAll(sent: Set<Sent>): void {
  for (const { giveUp } of sent) giveUp?.(new Unavailable())
}
