/**
 * Decides how many statements one connection gets.
 *
 * An idle database answers in 40 µs, less than a turn of the event loop. Then statements share one connection. They are
 * sent in one packet and answered in one, which costs both ends half as much as a connection for each.
 *
 * If a statement takes longer, those behind it wait although other connections are idle. So every prepared statement
 * remembers its recent duration, and a connection gets only statements that it can answer within `PIPELINE_MS`.
 *
 * Slower statements get an idle connection. If none is idle, each connection gets a queue of a few milliseconds, or of one
 * statement. So it has work while this process is busy. All other statements wait for the first free connection.
 *
 * Durations are measured with the server's clock, which is sometimes read before and after a statement. The clock of this
 * process is not precise enough: while the process is busy, answers wait in the socket.
 */

/** A connection with at most this much work counts as idle, in milliseconds. */
const PIPELINE_MS = 0.5
/**
 * Longest queue of a connection while no other is idle, in milliseconds of work. A busy process comes back to a
 * connection after several milliseconds, and waking an idle server process costs more than the statement.
 */
const QUEUE_MS = 12
/** While one statement runs, the next one is already at the server. */
const MIN_DEPTH = 2
/** Longest queue of a connection, in statements. A larger packet saves nothing, and a slow statement would delay more. */
const MAX_DEPTH = 16

/** Interval between two measurements of one prepared statement, in milliseconds. */
const MEASURE_INTERVAL_MS = 25
/** Number of recent measurements. Their median counts, because a busy machine makes some of them longer. */
const MEASUREMENTS = 9
/** A duration further above the median than this, in milliseconds, is an outlier. Even a rare one delays the queue. */
const OUTLIER_MS = 25
/** Number of runs after which two thirds of an outlier are forgotten. */
const OUTLIER_WINDOW = 64

/** The recent duration of a statement in milliseconds: the median, plus the mean of outliers. */
export class Pace {
  #measured: number[] = []
  #median = 0
  #outliers = 0
  #measureAt = Number.NEGATIVE_INFINITY

  get ms(): number {
    return this.#median + this.#outliers
  }

  /** True if the next statement is to be measured. */
  startsMeasuring(now: number): boolean {
    if (now < this.#measureAt) return false
    this.#measureAt = now + MEASURE_INTERVAL_MS
    return true
  }

  /** Adds a duration by the server's clock. */
  measured(ms: number): void {
    this.#measured = [...this.#measured.slice(1 - MEASUREMENTS), ms]
    const sorted = this.#measured.toSorted((a, b) => a - b)
    this.#median = sorted[sorted.length >> 1] as number
  }

  /** Adds the time until the answer was read. It may have waited in the socket, so only outliers count. */
  answered(ms: number): void {
    const excess = ms - this.#median
    this.#outliers += ((excess > OUTLIER_MS ? excess : 0) - this.#outliers) / OUTLIER_WINDOW
  }
}

/** `Recent` remembers values for this time, and at most for twice as long, in milliseconds. */
const RECENT_MS = 1_000

/** The shortest or the longest of recently measured times, in milliseconds. */
export class Recent {
  #current: number | undefined
  #before: number | undefined
  #currentEndsAt = Number.NEGATIVE_INFINITY

  /** @param choose `Math.min` or `Math.max` */
  constructor(private readonly choose: (a: number, b: number) => number) {}

  /** 0 if nothing was measured yet. */
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

/** Delays of an answer in addition to the server's work. */
export class Delays {
  /** Time of a statement without the server's work. The shortest counts, because a busy process makes others longer. */
  readonly roundTrip = new Recent(Math.min)
  /** Time that an answer may wait until this process reads it. The longest counts. */
  readonly eventLoop = new Recent(Math.max)
}

/** A connection that may take a statement. */
export interface Candidate {
  readonly isOpen: boolean
  /** True while a write is running: it may wait for a lock. */
  readonly isWriting: boolean
  /** Number of statements without an answer. */
  readonly pending: number
  /** Expected time until all of them are answered, in milliseconds. */
  readonly backlogMs: number
  /** True while the running statement takes unusually long. */
  isSlow(now: number): boolean
}

export interface Choice<C> {
  /** The connection for the statement; undefined if it must wait. */
  candidate: C | undefined
  /** True if one more connection would answer it sooner. */
  wantsMore: boolean
}

/**
 * Chooses the connection that is expected to answer first. Earlier connections are used first, so that later ones become
 * idle and are closed when few are enough.
 *
 * @param costMs expected duration of the statement
 * @param isolated true if it must have the connection to itself
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
      if (candidate.pending >= MAX_DEPTH) continue
      const afterMs = candidate.backlogMs + costMs
      if (!candidate.isWriting && afterMs <= PIPELINE_MS) return { candidate, wantsMore: false }
      const isShort = candidate.pending < MIN_DEPTH || afterMs <= QUEUE_MS
      if (isShort && (queued === undefined || candidate.backlogMs < queued.backlogMs)) queued = candidate
    }
  }
  if (idle !== undefined) return { candidate: idle, wantsMore: false }
  return { candidate: queued, wantsMore: true }
}

/** Most writes in a transaction. More would hold too many locks, and a retry after a failure would repeat too much. */
export const MAX_BATCH_SIZE = 32
/** Fewest writes in a transaction. Fewer would save less than its two further statements cost. */
const MIN_BATCH_SIZE = 4
/** Shortest durations that are assumed for a commit and a write. Below these, this process is the limit. */
export const MIN_COMMIT_MS = 0.5
const MIN_WRITE_MS = 0.015
/** Number of concurrent batches of quick writes: one is prepared while others wait for the disk. */
const MIN_BATCHES = 3

/**
 * Computes the number of writes that may share a transaction: as many as run in the time of the commit. So a write takes
 * at most twice as long as alone, and the database waits for its disk or standby once for all of them.
 *
 * @param writeMs duration of a write without its commit
 * @param commitMs duration of a commit
 */
export function batchSize(writeMs: number, commitMs: number): number {
  const size = 1 + Math.max(commitMs, MIN_COMMIT_MS) / Math.max(writeMs, MIN_WRITE_MS)
  return size < MIN_BATCH_SIZE ? 1 : Math.min(MAX_BATCH_SIZE, Math.floor(size))
}

/**
 * Computes the number of batches that may run at the same time. Further writes wait for the next batch. Large batches need
 * few at a time, so that they become large. A slow network needs more, so that the database works meanwhile.
 *
 * @param size largest batch at present
 * @param serviceMs duration of the database's work on a batch
 * @param connections maximum number of connections in the pool
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
