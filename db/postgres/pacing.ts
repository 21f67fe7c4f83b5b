/**
 * How many statements one connection gets.
 *
 * An idle database answers in 40 µs, less than a turn of the event loop. Statements then share one connection: they go
 * out in one packet and come back in one, which costs both ends half as much as a connection for each. As soon as a
 * statement takes longer, those behind it wait, and other connections could work. So every prepared statement
 * remembers how long it has lately run, and a connection takes what it can answer within `PIPELINE_MS`. Slower
 * statements get an idle connection. When none is idle, a few milliseconds of work are queued on each connection, or one
 * statement, so that it has the next one while this process is busy. The rest waits for whichever answers first.
 *
 * How long a statement runs is measured by the server's own clock, which is read before and after one of them from time
 * to time. The clock of this process cannot tell: while the process is busy, answers lie ready in the socket.
 */

/** A connection with less work than this is as good as an idle one, in milliseconds. */
const PIPELINE_MS = 0.5
/** The work that one connection may have queued while no other is idle, in milliseconds. */
const QUEUE_MS = 4
/** One statement runs, and the next one has already arrived when it ends. */
const MIN_DEPTH = 2
/** A slow statement holds up no more than these; more in one packet save nothing. */
const MAX_DEPTH = 16

/** The time between two measurements of one prepared statement, in milliseconds. */
const MEASURE_INTERVAL_MS = 25
/** The latest measurements, of which the median counts: a busy machine makes some of them longer. */
const MEASUREMENTS = 9
/** A statement that takes so much longer holds up those behind it even if it is rare, so such ones count by their mean. */
const OUTLIER_MS = 25
/** How many runs it takes to forget two thirds of an outlier. */
const OUTLIER_WINDOW = 64

/** How long a statement has lately run, in milliseconds: the median, and the share of outliers. */
export class Pace {
  #measured: number[] = []
  #median = 0
  #outliers = 0
  #measureAt = Number.NEGATIVE_INFINITY

  get ms(): number {
    return this.#median + this.#outliers
  }

  /** Whether the statement that is about to be sent is one to measure. */
  startsMeasuring(now: number): boolean {
    if (now < this.#measureAt) return false
    this.#measureAt = now + MEASURE_INTERVAL_MS
    return true
  }

  /** Takes the time that the server needed, by its own clock. */
  measured(ms: number): void {
    this.#measured = [...this.#measured.slice(1 - MEASUREMENTS), ms]
    const sorted = this.#measured.toSorted((a, b) => a - b)
    this.#median = sorted[sorted.length >> 1] as number
  }

  /** Takes the time after which the answer was read. It may have lain ready for a while, so only outliers count. */
  answered(ms: number): void {
    const excess = ms - this.#median
    this.#outliers += ((excess > OUTLIER_MS ? excess : 0) - this.#outliers) / OUTLIER_WINDOW
  }
}

/** How long `Recent` remembers, at least; at most twice as long. In milliseconds. */
const RECENT_MS = 1_000

/** The shortest or the longest of some times that were lately measured, in milliseconds. */
export class Recent {
  #current: number | undefined
  #before: number | undefined
  #currentEndsAt = Number.NEGATIVE_INFINITY

  /** @param choose `Math.min` or `Math.max` */
  constructor(private readonly choose: (a: number, b: number) => number) {}

  /** 0 as long as nothing was measured. */
  get ms(): number {
    const current = this.#current ?? 0
    return this.choose(this.#before ?? current, current)
  }

  measured(ms: number, now: number): void {
    if (now >= this.#currentEndsAt) {
      this.#currentEndsAt = now + RECENT_MS
      this.#before = this.#current
      this.#current = ms
    } else this.#current = this.choose(this.#current ?? ms, ms)
  }
}

/** What makes an answer later than the server's work does. */
export class Delays {
  /** From a statement to its answer without the server's work: the shortest, because a busy process makes others longer. */
  readonly roundTrip = new Recent(Math.min)
  /** For how long an answer may lie ready until this process reads it: the longest. */
  readonly eventLoop = new Recent(Math.max)
}

/** A connection that may take a statement. */
export interface Candidate {
  readonly isOpen: boolean
  /** Whether a write is under way, which may turn out to wait for a lock. */
  readonly isWriting: boolean
  /** How many statements are not answered. */
  readonly pending: number
  /** The expected time until they are, in milliseconds. */
  readonly owedMs: number
  /** Whether the running statement takes unusually long. */
  isSlow(now: number): boolean
}

export interface Choice<C> {
  /** Where the statement goes; undefined when it has to wait. */
  candidate: C | undefined
  /** Whether one more connection would answer it sooner. */
  wantsMore: boolean
}

/**
 * Chooses the connection that is expected to answer first. Connections are filled in their order, so those at the end
 * become idle, and are closed, when few are enough.
 *
 * @param costMs how long the statement is expected to run
 * @param isolated whether it must have the connection to itself
 */
export function chooseConnection<C extends Candidate>(
  candidates: readonly C[],
  costMs: number,
  isolated: boolean,
  now: number
): Choice<C> {
  let idle: C | undefined
  let queued: C | undefined
  for (const candidate of candidates) {
    if (!candidate.isOpen) continue
    if (candidate.pending === 0) {
      if (costMs <= PIPELINE_MS) return { candidate, wantsMore: false }
      idle ??= candidate
    } else if (!isolated && !candidate.isSlow(now)) {
      const isQuick = !candidate.isWriting && candidate.owedMs + costMs <= PIPELINE_MS
      if (isQuick && candidate.pending < MAX_DEPTH) return { candidate, wantsMore: false }
      const isShort = candidate.pending < MIN_DEPTH || candidate.owedMs + costMs <= QUEUE_MS
      if (isShort && (queued === undefined || candidate.owedMs < queued.owedMs)) queued = candidate
    }
  }
  if (idle !== undefined) return { candidate: idle, wantsMore: false }
  return { candidate: queued, wantsMore: true }
}

/** The most writes that may share a transaction: with more, too many locks are held, and too much is done again. */
export const MAX_BATCH_SIZE = 32
/** Fewer do not pay: a transaction takes two more statements, and costs both ends more than it saves. */
const MIN_BATCH_SIZE = 4
/** What a commit and a write cost at least, in milliseconds: below that the process is the limit, not the database. */
export const MIN_COMMIT_MS = 0.5
const MIN_WRITE_MS = 0.015
/** Batches that may be under way at once when writes are quick: one is prepared while others wait for the disk. */
const MIN_BATCHES = 3

/**
 * How many writes may share a transaction: as many as run in the time that the commit takes. So nobody waits more than
 * twice as long as alone, and the database waits for its disk, or its standby, once for all of them.
 *
 * @param writeMs how long a write runs without its commit
 * @param commitMs how long a commit takes
 */
export function batchSize(writeMs: number, commitMs: number): number {
  const size = 1 + Math.max(commitMs, MIN_COMMIT_MS) / Math.max(writeMs, MIN_WRITE_MS)
  return size < MIN_BATCH_SIZE ? 1 : Math.min(MAX_BATCH_SIZE, Math.floor(size))
}

/**
 * How many batches may be under way at once; more writes than that wait for the next one. Few while a batch holds
 * many writes, so that batches become large. More where the network takes a good part of the time: the database works
 * on other batches meanwhile.
 *
 * @param size the largest batch now
 * @param serviceMs how long the database works on a batch
 * @param connections the most that the pool may have
 */
export function maxBatches(
  size: number,
  serviceMs: number,
  roundTripMs: number,
  connections: number
): number {
  const working = Math.max(MIN_BATCHES, Math.ceil((2 * connections) / size))
  return Math.ceil(working * (1 + roundTripMs / Math.max(serviceMs, MIN_COMMIT_MS)))
}
