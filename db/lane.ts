import { Unavailable } from '../src/errors.js'
import { isOutage } from './outage.js'

/** One connection to a database, which answers statements in the order in which they were sent. */
export interface Connection {
  /** Sends a statement without waiting for the answers to earlier ones. */
  query(text: string, parameters: unknown[]): PromiseLike<unknown[]>
  /** Asks the database to stop working on this query. Nothing happens when it is not the one that it works on. */
  cancel(query: PromiseLike<unknown[]>): void
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

interface Sent {
  query: PromiseLike<unknown[]>
  until: number
  /** Answers the request; undefined once that was done. */
  giveUp: ((reason: Error) => void) | undefined
  cancelled: number | undefined
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

  /** @param onSilence called when a connection was destroyed because nobody seems to be at its other end */
  constructor(
    private readonly connect: () => Connection,
    private readonly onSilence: () => void = () => {}
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
  run(text: string, parameters: unknown[], now: number, milliseconds: number): Promise<unknown[]> {
    this.#connection ??= this.connect()
    if (this.#sent.size === 0) this.#heard = now
    const query = this.#connection.query(text, parameters)
    return new Promise((resolve, reject) => {
      const sent: Sent = { query, until: now + milliseconds, giveUp: reject, cancelled: undefined }
      this.#sent.add(sent)
      query.then(
        (rows) => {
          this.#answered(sent)
          resolve(rows)
        },
        (error) => {
          this.#answered(sent)
          reject(isOutage(error) ? new Unavailable({ cause: error }) : error)
        }
      )
    })
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
      this.onSilence()
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

function giveUpAll(sent: Set<Sent>): void {
  for (const { giveUp } of sent) giveUp?.(new Unavailable())
}
