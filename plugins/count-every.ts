/**
 * Limits log lines about frequent events. The returned function must be called for each event.
 *
 * At most once in `milliseconds` it returns the number of events that it has not returned yet, and otherwise undefined.
 */
export function countEvery(milliseconds: number): () => number | undefined {
  let dueAt = Number.NEGATIVE_INFINITY
  let events = 0
  return () => {
    events++
    const now = performance.now()
    if (now < dueAt) return undefined
    dueAt = now + milliseconds
    const counted = events
    events = 0
    return counted
  }
}
