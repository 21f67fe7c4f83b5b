/**
 * How many statements one connection gets.
 *
 * An idle database answers in 40 µs, less than a turn of the event loop. Statements then share one connection: they go
 * out in one packet and come back in one, which costs both ends half as much as a connection for each. As soon as a
 * statement takes longer, those behind it wait, and other connections could work. So every prepared statement
 * remembers how long it has lately run, and a connection takes what it can answer within `PIPELINE_MS`. When
 * statements are slower than that, each connection has one running and one queued, and the rest waits for whichever
 * connection answers first.
 *
 * Running time is measured between two answers of a connection, because the first answer also waits for the network and
 * for processes to wake up. Only time in which the event loop was idle counts: while the process is busy with other
 * requests, an answer lies ready in the socket. What is left of a busy machine shows in the mean, and not in the median:
 * there most answers of a quick statement still come together with the one before.
 */

/** The work that one connection may have queued, in milliseconds. */
const PIPELINE_MS = 0.5
/** One statement runs, and the next one has already arrived when it ends. */
const MIN_DEPTH = 2
/** A slow statement holds up no more than these; more in one packet save nothing. */
const MAX_DEPTH = 16

/** Below this a statement counts as instant. */
const INSTANT_MS = 0.01
/** A statement that runs longer holds up those behind it even if it is rare, so such ones count by their mean. */
const OUTLIER_MS = 25
/** How many runs it takes to forget two thirds of an outlier. */
const OUTLIER_WINDOW = 64

/** How long a statement has lately run, in milliseconds: the median, and the share of outliers. */
export class Pace {
  #median = 0
  #outliers = 0

  get ms(): number {
    return (this.#median > INSTANT_MS ? this.#median : 0) + this.#outliers
  }

  observe(ms: number): void {
    // Equal steps up and down meet where half of the runs are longer.
    this.#median = ms > this.#median ? Math.max(this.#median, INSTANT_MS) * 1.1 : this.#median / 1.1
    this.#outliers += ((ms > OUTLIER_MS ? ms : 0) - this.#outliers) / OUTLIER_WINDOW
  }
}

/** A connection that may take a statement. */
export interface Candidate {
  readonly isOpen: boolean
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
      const isQuick = candidate.owedMs + costMs <= PIPELINE_MS
      if (isQuick && candidate.pending < MAX_DEPTH) return { candidate, wantsMore: false }
      const isShort = candidate.pending < MIN_DEPTH
      if (isShort && (queued === undefined || candidate.owedMs < queued.owedMs)) queued = candidate
    }
  }
  if (idle !== undefined) return { candidate: idle, wantsMore: false }
  return { candidate: queued, wantsMore: true }
}

/** The most writes that may share a transaction: with more, too many locks are held, and too much is done again. */
export const MAX_BATCH_SIZE = 32
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
  return Math.min(MAX_BATCH_SIZE, Math.floor(size))
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
