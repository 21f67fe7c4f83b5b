/** Intervals between two measurements of one prepared statement, in milliseconds: at first, and when its duration is steady. */
const MIN_INTERVAL_MS = 25
const MAX_INTERVAL_MS = 400
/** A duration is steady while it differs from the median by at most half, or by this many milliseconds. */
const STEADY_MS = 0.25
/** Number of recent measurements. Their median counts, because a busy machine makes some of them longer. */
const MEASUREMENTS = 9
/** A duration further above the median than this, in milliseconds, is an outlier. Even a rare one delays the queue. */
const OUTLIER_MS = 25
/** Number of runs after which two thirds of an outlier are forgotten. */
const OUTLIER_WINDOW = 64

/**
 * The recent duration of a statement in milliseconds: the median, plus the mean of outliers.
 *
 * It is measured with the server's clock, which is sometimes read before and after a statement. The clock of this process
 * is not precise enough: while the process is busy, answers wait in the socket. Only for commits through a pooler there is no
 * other.
 */
export class Pace {
  #measured: number[] = []
  #median = 0
  #outliers = 0
  #intervalMs = MIN_INTERVAL_MS
  #startedAt = Number.NEGATIVE_INFINITY

  get ms(): number {
    return this.#median + this.#outliers
  }

  /** True if the next statement is to be measured. */
  startsMeasuring(now: number): boolean {
    if (now < this.#startedAt + this.#intervalMs) return false
    this.#startedAt = now
    return true
  }

  /** Adds a measured duration. */
  measured(ms: number): void {
    const isSteady = Math.abs(ms - this.#median) <= Math.max(STEADY_MS, this.#median / 2)
    this.#intervalMs = isSteady ? Math.min(2 * this.#intervalMs, MAX_INTERVAL_MS) : MIN_INTERVAL_MS
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
