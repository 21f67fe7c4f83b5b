import { Unavailable } from '../src/errors.js'
import type { Target } from './driver.js'
import { type Lane, RolledBack, type Rows, type Statement } from './lane.js'

/** Writes that may share a transaction: with more of them, more waits for the slowest, and holds its locks. */
const MOST = 32
/** A transaction that takes longer is stopped, and each of its writes tried alone: one of them waits for something. */
const SHARED_MS = 500

interface Write extends Statement {
  target: Target
  until: number
  /** Not with others again. */
  alone: boolean
  resolve(rows: Rows): void
  reject(reason: unknown): void
}

interface Underway {
  since: number
}

/**
 * Group commit: writes of different requests that wait at the same time share a transaction, so that the database waits
 * for its disk, and wakes this process, once for all of them. Each stays as atomic as it would be alone: it is answered
 * when the transaction has committed, and when that fails because of one write, the others are tried alone.
 *
 * A connection has one transaction under way at a time; what comes meanwhile is the next one.
 */
export class Group {
  #queue: Write[] = []
  readonly #underway = new Map<Lane, Underway>()
  #scheduled = false

  constructor(private readonly lanes: readonly Lane[]) {}

  /** How many writes were not yet sent. */
  get waiting(): number {
    return this.#queue.length
  }

  /** @throws Unavailable when the database cannot be reached or does not answer in time */
  run(statement: Statement, target: Target, now: number, milliseconds: number): Promise<Rows> {
    return new Promise((resolve, reject) => {
      const { text, parameters } = statement
      this.#queue.push({ text, parameters, target, until: now + milliseconds, alone: false, resolve, reject })
      if (this.#scheduled) return
      this.#scheduled = true
      // When all requests that arrived together were looked at.
      setImmediate(() => {
        this.#scheduled = false
        this.#sendAll()
      })
    })
  }

  /** To be called every `TICK_MS`. */
  tick(now: number): void {
    for (const [lane, { since }] of this.#underway) if (now >= since + SHARED_MS) lane.stopTransaction(now)
    if (this.#queue.some(({ until }) => now >= until)) {
      const late = this.#queue.filter(({ until }) => now >= until)
      this.#queue = this.#queue.filter(({ until }) => now < until)
      for (const { reject } of late) reject(new Unavailable())
    }
    // A lane may have come free that nothing was sent on from here.
    this.#sendAll()
  }

  /** Gives up what was not sent. */
  end(): void {
    for (const { reject } of this.#queue.splice(0)) reject(new Unavailable())
  }

  #sendAll(): void {
    while (this.#queue.length > 0) {
      const lane = this.#freeLane()
      if (lane === undefined) return
      this.#underway.set(lane, { since: performance.now() })
      void this.#send(lane, this.#next()).finally(() => {
        this.#underway.delete(lane)
        this.#sendAll()
      })
    }
  }

  #freeLane(): Lane | undefined {
    let free: Lane | undefined
    for (const lane of this.lanes) {
      if (this.#underway.has(lane) || lane.isStuck) continue
      if (free === undefined || lane.waiting < free.waiting) free = lane
    }
    return free
  }

  /**
   * What shares the next transaction. Locks are taken in one order, by user and then by task, so that no two transactions
   * wait for each other; that would be possible where a write that may lock any of a user's tasks shares with another
   * write of that user, so it does not.
   */
  #next(): Write[] {
    const [first] = this.#queue as [Write]
    if (first.alone) return this.#queue.splice(0, 1)
    const next: Write[] = []
    const left: Write[] = []
    const users = new Map<string, Target>()
    for (const write of this.#queue) {
      const { user, id } = write.target
      const other = users.get(user)
      const fits = other === undefined || (other.id !== undefined && id !== undefined)
      if (next.length === MOST || write.alone || !fits) left.push(write)
      else {
        users.set(user, write.target)
        next.push(write)
      }
    }
    this.#queue = left
    return next
  }

  /** Never throws. */
  async #send(lane: Lane, writes: Write[]): Promise<void> {
    const [first] = writes as [Write]
    const now = performance.now()
    const milliseconds = first.until - now
    if (writes.length === 1) return lane.run(first, now, milliseconds).then(first.resolve, first.reject)

    writes.sort(byTarget)
    try {
      const results = await lane.transact(writes, now, milliseconds)
      for (const [index, { resolve }] of writes.entries()) resolve(results[index] as Rows)
    } catch (error) {
      if (!(error instanceof RolledBack)) {
        for (const { reject } of writes) reject(error)
        return
      }
      const { culprit, reason } = error
      if (culprit !== undefined) writes[culprit]?.reject(reason)
      const others = writes.filter((_, index) => index !== culprit)
      this.#queue.unshift(...others.map((write) => ({ ...write, alone: true })))
    }
  }
}

function byTarget({ target: a }: Write, { target: b }: Write): number {
  if (a.user !== b.user) return a.user < b.user ? -1 : 1
  if (a.id === undefined || b.id === undefined || a.id === b.id) return 0
  return a.id < b.id ? -1 : 1
}
