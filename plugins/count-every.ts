/**
 * Limits log lines about frequent events.
 *
 * @returns a function to call for each event: it returns the number of events since it last returned one, but at most once
 * in this time. Otherwise it returns undefined
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
