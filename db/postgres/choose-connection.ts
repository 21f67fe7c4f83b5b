/**
 * Decides how many statements one connection gets.
 *
 * An idle database answers in 40 µs, less than a turn of the event loop. Then statements share one connection. They are
 * sent in one packet and answered in one, which costs both ends half as much as a connection for each.
 *
 * If a statement takes longer, those behind it wait although other connections are idle. So every prepared statement
 * remembers its recent duration (durations.ts), and a connection gets only statements that it can answer within `PIPELINE_MS`.
 *
 * Slower statements get an idle connection. If none is idle, each connection gets a queue of some milliseconds, or of one
 * statement. So it has work while this process is busy. All other statements wait for the first free connection.
 */

/** A connection with at most this much work counts as idle, in milliseconds. */
const PIPELINE_MS = 0.5
/**
 * Longest queue of a connection while no other is idle, in milliseconds of work. A busy process comes back to a
 * connection after several milliseconds, and waking an idle server process costs more than the statement.
 */
const QUEUE_MS = 30
/** While one statement runs, the next one is already at the server. */
const MIN_DEPTH = 2
/** Longest queue of a connection, in statements. A larger packet saves nothing, and a slow statement would delay more. */
const MAX_DEPTH = 16

/** A connection that may take a statement. */
export interface Candidate {
  readonly isOpen: boolean
  /** True if nothing is running, not even a reading of the clock. */
  readonly isIdle: boolean
  /** True while a write is running: it may wait for a lock. */
  readonly isWriting: boolean
  /** Number of statements without an answer, without readings of the clock. */
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
      // If it is not idle, only a reading of the clock is running.
      if (!candidate.isIdle && candidate.isSlow(now)) continue
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
