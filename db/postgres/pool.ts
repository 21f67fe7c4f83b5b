import type { Rows, Statement } from '../driver.js'
import { DatabaseUnavailable } from '../errors.js'
import { type ClosingReason, type DatabaseObservations, observations } from '../observations.js'
import { chooseConnection } from './choose-connection.js'
import { laps, type Sending, Session, type SessionEvents, TICK_MS } from './deadline-session.js'
import type { Client, ConnectionEvents } from './driver.js'
import { Delays, type Pace } from './durations.js'
import type { DatabaseAddress } from './url.js'

/** Delays after a failed attempt to connect, in milliseconds: while other connections work, and while none does. */
const RECONNECT_MS = 1_000
const FIRST_RECONNECT_MS = 100
/** An idle connection is closed after this time, except the last one, in milliseconds. */
const IDLE_MS = 60_000
/** If a server has become read-only, all connections are replaced, at most once in this time, in milliseconds. */
const RECONNECT_ALL_MS = 1_000

/** Work that needs a connection. */
export interface Ticket {
  costMs: number
  /** True if it must have the connection to itself. */
  isolated: boolean
  until: number
  start(session: Session, now: number): void
  reject(reason: Error): void
}

/**
 * Connections to one database, opened as needed, up to `max`. Work goes to the connection that is expected to answer
 * first (choose-connection.ts). If all are busy, it waits in a queue.
 */
export class Pool {
  /** Earlier ones are used first. */
  #sessions: Session[] = []
  #waiting: Ticket[] = []
  #opening = 0
  #nextOpenAt = Number.NEGATIVE_INFINITY
  #openError: unknown
  #reconnectedAllAt = Number.NEGATIVE_INFINITY
  #isClosed = false
  #tickedAt = performance.now()

  readonly delays = new Delays()

  /** @param open connects. It rejects if no server can be used */
  constructor(
    private readonly open: (events: ConnectionEvents) => Promise<Client>,
    readonly max: number,
    readonly observed: DatabaseObservations = observations()
  ) {}

  /** Number of statements and other work without an answer. */
  get pending(): number {
    return this.waiting + this.sent
  }

  /** Length of the queue. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** Number of statements that were sent and have no answer yet. */
  get sent(): number {
    let sent = 0
    for (const session of this.#sessions) sent += session.pending
    return sent
  }

  /** Number of connections that are blocked until a synchronous standby answers. */
  get awaitingStandby(): number {
    return this.#sessions.filter((session) => session.awaitsStandby).length
  }

  get connections(): { idle: number; busy: number; opening: number } {
    const idle = this.#sessions.filter((session) => session.isIdle).length
    return { idle, busy: this.#sessions.length - idle, opening: this.#opening }
  }

  /** @throws DatabaseUnavailable if the database cannot be reached, or does not answer in time */
  read(statement: Statement, pace: Pace, now: number, until: number): Promise<Rows> {
    const session = this.#pick(pace.ms, false, now)
    const sending = { until, costMs: pace.ms, pace, isWrite: false }
    if (session !== undefined) {
      this.observed.emit('sent', 0)
      return send(session, statement, now, sending)
    }
    return new Promise((resolve, reject) => {
      const start = (session: Session, sentAt: number) => {
        this.observed.emit('sent', sentAt - now)
        void send(session, statement, sentAt, sending).then(resolve, reject)
      }
      this.#wait({ costMs: pace.ms, isolated: false, until, start, reject }, now)
    })
  }

  /** Starts the work now, or when a connection is free. */
  run(ticket: Ticket, now: number): void {
    const session = this.#pick(ticket.costMs, ticket.isolated, now)
    if (session !== undefined) ticket.start(session, now)
    else this.#wait(ticket, now)
  }

  /**
   * Reserves a connection until `release`, or until it is closed.
   *
   * @throws DatabaseUnavailable if none is free in time
   */
  reserve(until: number): Promise<Session> {
    return new Promise((resolve, reject) => {
      const now = performance.now()
      const start = (session: Session, sentAt: number) => {
        this.observed.emit('sent', sentAt - now)
        session.reserve()
        resolve(session)
      }
      this.run({ costMs: 0, isolated: true, until, start, reject }, now)
    })
  }

  release(session: Session): void {
    session.release(performance.now())
    this.#dispatch()
  }

  /** @see Driver.tick */
  tick(now: number): void {
    const real = performance.now()
    this.delays.eventLoop.measured(Math.max(0, real - this.#tickedAt - TICK_MS), real)
    this.#tickedAt = real
    for (const session of [...this.#sessions]) {
      session.tick(now)
      if (this.#sessions.length > 1 && session.idleMs(now) > IDLE_MS) session.retire('idle', now)
    }
    if (this.#waiting.some(({ until }) => now >= until)) {
      const late = this.#waiting.filter(({ until }) => now >= until)
      this.#waiting = this.#waiting.filter(({ until }) => now < until)
      for (const ticket of late) this.#rejectLate(ticket)
    }
    this.#dispatch()
  }

  /** Closes every connection. Running statements have `milliseconds` to finish. */
  async end(milliseconds: number): Promise<void> {
    this.#isClosed = true
    this.#rejectWaiting(new DatabaseUnavailable('closing'))
    await Promise.all(this.#sessions.map((session) => session.end(milliseconds)))
  }

  #pick(costMs: number, isolated: boolean, now: number): Session | undefined {
    // New work must not overtake the queue.
    return this.#waiting.length > 0 ? undefined : this.#choose(costMs, isolated, now)
  }

  #choose(costMs: number, isolated: boolean, now: number): Session | undefined {
    const { candidate, wantsMore } = chooseConnection(this.#sessions, costMs, isolated, now)
    if (wantsMore) this.#grow(now)
    return candidate
  }

  #wait(ticket: Ticket, now: number): void {
    this.#waiting.push(ticket)
    // There is no connection, and the last attempt to open one has just failed.
    const cannotOpen = this.#opening === 0 && now < this.#nextOpenAt
    if (this.#isClosed || (this.#sessions.length === 0 && cannotOpen)) {
      const reason = this.#isClosed ? 'closing' : 'connection'
      this.#rejectWaiting(new DatabaseUnavailable(reason, { cause: this.#openError }))
    }
  }

  #dispatch(): void {
    const now = performance.now()
    for (let ticket = this.#waiting[0]; ticket !== undefined; ticket = this.#waiting[0]) {
      if (now >= ticket.until) {
        this.#waiting.shift()
        this.#rejectLate(ticket)
        continue
      }
      const session = this.#choose(ticket.costMs, ticket.isolated, now)
      if (session === undefined) return
      this.#waiting.shift()
      ticket.start(session, now)
    }
  }

  /** Opens one more connection, unless there are enough. It opens at most as many at a time as there are already. */
  #grow(now: number): void {
    const { length } = this.#sessions
    if (this.#isClosed || length + this.#opening >= this.max || this.#opening > length) return
    if (now < this.#nextOpenAt) return
    this.#opening++
    let session: Session | undefined
    const events: ConnectionEvents = {
      onClosed: () => session?.close('lost'),
      onStandbyUnconfirmed: () => session?.markStandbyUnconfirmed()
    }
    this.open(events).then(
      (client) => {
        this.#opening--
        this.#openError = undefined
        if (this.#isClosed) return client.destroy()
        this.#retireOthersThan(client.address)
        this.delays.roundTrip.measured(client.roundTripMs, performance.now())
        session = new Session(client, this.#events, this.delays)
        this.#sessions.push(session)
        this.observed.emit('opened')
        this.#dispatch()
      },
      (error) => {
        this.#opening--
        this.#openError = error
        this.observed.emit('openFailed')
        const isFirst = this.#sessions.length === 0
        this.#nextOpenAt = performance.now() + (isFirst ? FIRST_RECONNECT_MS : RECONNECT_MS)
        if (isFirst && this.#opening === 0) {
          this.#rejectWaiting(new DatabaseUnavailable('connection', { cause: error }))
        }
      }
    )
  }

  /** Closes the connections to other servers: they are no longer the primary. */
  #retireOthersThan(address: DatabaseAddress): void {
    const now = performance.now()
    for (const session of [...this.#sessions]) {
      if (session.connection.address !== address) session.retire('read_only', now)
    }
  }

  readonly #events: SessionEvents = {
    onAnswer: () => {
      if (this.#waiting.length > 0) this.#dispatch()
    },
    onTimeout: () => this.observed.emit('timedOut', 'sent'),
    onCancel: (reason) => this.observed.emit('cancelled', reason),
    onClosed: (session, reason) => this.#remove(session, reason),
    onReadOnly: () => this.#reconnectAll()
  }

  #remove(session: Session, reason: ClosingReason): void {
    this.#sessions = this.#sessions.filter((other) => other !== session)
    this.observed.emit('closed', reason)
    // The network or the server has failed. Idle connections are dead too, and each would make a request fail.
    if (reason === 'unresponsive') {
      for (const other of this.#sessions) if (other.isIdle) other.close('unresponsive')
    }
    if (!this.#isClosed) this.#dispatch()
  }

  /** Replaces every connection: old ones stay read-only, even if their server becomes the primary again. */
  #reconnectAll(): void {
    const now = performance.now()
    if (now < this.#reconnectedAllAt + RECONNECT_ALL_MS) return
    this.#reconnectedAllAt = now
    for (const session of [...this.#sessions]) session.retire('read_only', now)
  }

  #rejectLate({ reject }: Ticket): void {
    this.observed.emit('timedOut', 'waiting')
    reject(new DatabaseUnavailable('timeout', { cause: this.#openError }))
  }

  #rejectWaiting(reason: Error): void {
    for (const { reject } of this.#waiting.splice(0)) reject(reason)
  }
}

/**
 * Sends a statement. To measure it, reads the server's clock twice before it and once after it. Behind a pooler nothing is
 * queued by its duration, so it is not measured.
 */
function send(
  session: Session,
  statement: Statement,
  now: number,
  sending: Sending & { pace: Pace }
): Promise<Rows> {
  const { pace, until } = sending
  if (!session.connection.canPipeline || !pace.startsMeasuring(now))
    return session.send(statement, now, sending)
  const clocks = [session.clock(now, until), session.clock(now, until)]
  const answer = session.send(statement, now, sending)
  void laps([...clocks, session.clock(now, until)]).then((times) => times?.map((ms) => pace.measured(ms)))
  return answer
}
