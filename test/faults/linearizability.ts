/** Something that a client did to an object with the state `S`. */
export interface Step<S> {
  began: number
  /** Infinity when it may take effect at any time after it began, or never. */
  ended: number
  /** Equal for steps without an answer that would do the same. */
  name: string
  /** The state after it; undefined when it cannot have been answered as it was in this state. */
  apply(state: S): S | undefined
  /** Whether it can never more be applied, from this state on. */
  isTooLate?(state: S): boolean
}

export interface Search<S> {
  linearizable: boolean
  /** False when the search was given up, which answers nothing. */
  decided: boolean
  /** How many of the steps with an answer could be put in order at most, and the state then. */
  placed: number
  state: S
}

/** Histories are meant to be short; one that takes more states than this is reported rather than searched for hours. */
const MAX_STATES = 500_000

/**
 * Whether there is an order of the steps in which each takes effect at one moment between its beginning and its end,
 * and every answer is right: J. M. Wing and C. Gong, "Testing and verifying concurrent objects", 1993, with the visited
 * states remembered (G. Lowe, "Testing for linearizability", 2017).
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

  /** The steps that may be next: none of the others had ended before they began. */
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
        // Of those that would do the same, the earliest can do whatever the others can.
        names.add(step.name)
        found.push(index)
      }
    }
    // Those without an answer last: mostly they did nothing.
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
    // What changes nothing and may be now can only become impossible by waiting.
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
