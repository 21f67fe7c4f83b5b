/** An operation of a client on an object with the state `S`. */
export interface Step<S> {
  began: number
  /** Infinity if it may take effect at any later time, or never. */
  ended: number
  /** Steps without an answer and with the same effect have equal names. */
  name: string
  /** The state after it; undefined if its answer is impossible in this state. */
  apply(state: S): S | undefined
  /** True if it can never be applied from this state on. */
  isTooLate?(state: S): boolean
}

export interface Search<S> {
  linearizable: boolean
  /** False if the search reached its limit, and has no result. */
  decided: boolean
  /** The largest number of answered steps that could be put in order, and the state after them. */
  placed: number
  state: S
}

/**
 * Limit for the number of visited states. Histories should be short, and a longer search is reported as undecided.
 */
const MAX_STATES = 500_000

/**
 * Searches for an order of the steps in which each takes effect between its beginning and its end, and every answer is
 * right.
 *
 * The algorithm is that of J. M. Wing and C. Gong, "Testing and verifying concurrent objects", 1993. It caches visited
 * states (G. Lowe, "Testing for linearizability", 2017).
 *
 * @param keyOf equal for equal states
 */
export function searchLinearization<S>(initial: S, steps: Step<S>[], keyOf: (state: S) => string): Search<S> {
  const sorted = [...steps].sort((a, b) => a.began - b.began)
  const done = sorted.map(() => false)
  const isMandatory = ({ ended }: Step<S>) => ended !== Number.POSITIVE_INFINITY
  const mandatory = sorted.filter(isMandatory).length
  const visited = new Set<string>()
  const best = { placed: 0, state: initial }
  let mask = 0n
  let decided = true

  const mark = (index: number) => {
    done[index] = !done[index]
    mask ^= 1n << BigInt(index)
  }

  /** The possible next steps: no other step had ended before they began. */
  function candidates(): number[] {
    const found: number[] = []
    const names = new Set<string>()
    let end = Number.POSITIVE_INFINITY
    for (let index = 0; index < sorted.length; index++) {
      const step = sorted[index] as Step<S>
      if (step.began > end) break
      if (done[index]) continue
      if (isMandatory(step)) {
        end = Math.min(end, step.ended)
        found.push(index)
      } else if (!names.has(step.name)) {
        // Of steps with the same effect, only the earliest is needed.
        names.add(step.name)
        found.push(index)
      }
    }
    // Steps without an answer are tried last, because most had no effect.
    const rank = (index: number) => Number(!isMandatory(sorted[index] as Step<S>))
    return found.sort((a, b) => rank(a) - rank(b))
  }

  function search(state: S, placed: number): boolean {
    if (placed > best.placed) Object.assign(best, { placed, state })
    if (placed === mandatory) return true
    const seen = `${mask.toString(36)} ${keyOf(state)}`
    if (visited.has(seen)) return false
    visited.add(seen)
    if (visited.size > MAX_STATES) {
      decided = false
      return false
    }
    const next = candidates()
    if (next.some((index) => sorted[index]?.isTooLate?.(state))) return false
    const here = keyOf(state)
    const possible = next.flatMap((index) => {
      const step = sorted[index] as Step<S>
      const after = step.apply(state)
      if (after === undefined) return []
      return [{ index, after, isMandatory: isMandatory(step), changes: keyOf(after) !== here }]
    })
    // A possible step that changes nothing can only become impossible later, so it is taken at once.
    const free = possible.find(({ isMandatory, changes }) => isMandatory && !changes)
    for (const { index, after, isMandatory, changes } of free ? [free] : possible) {
      if (!isMandatory && !changes) continue
      mark(index)
      if (search(after, placed + (isMandatory ? 1 : 0))) return true
      mark(index)
      if (!decided) return false
    }
    return false
  }

  const linearizable = search(initial, 0)
  return { linearizable, decided: linearizable || decided, ...best }
}
