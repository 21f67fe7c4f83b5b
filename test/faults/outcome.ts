import type { Operation } from './history.js'
import { firstSuccess } from './load.js'
import type { Fault } from './schedule.js'

/** The result of one fault. Times are monotonic, in milliseconds. */
export interface Outcome {
  fault: Fault
  began: number
  ended: number
  /** Number of requests by status, during the fault and the recovery. */
  statuses: Record<string, number>
  /** The longest duration of one of them. */
  longest: number
  /**
   * From the end of the fault until every replica has acknowledged a write that was sent after it. Infinity if not
   * all did.
   */
  recovery: number
}

/**
 * From the end of a fault until every replica has acknowledged a write that was sent after it; undefined if not all
 * have yet.
 */
export function recoveryOf(history: Operation[], replicas: number, ended: number): number | undefined {
  let last = 0
  for (let replica = 0; replica < replicas; replica++) {
    const first = firstSuccess(history, replica, ended)
    if (first === undefined) return undefined
    last = Math.max(last, first - ended)
  }
  return last
}

/** @param recovery in milliseconds */
export function outcomeOf(
  history: Operation[],
  fault: Fault,
  times: { began: number; ended: number; recovery: number }
): Outcome {
  const { began, ended, recovery } = times
  const end = Number.isFinite(recovery) ? ended + recovery : performance.now()
  const statuses: Record<string, number> = {}
  let longest = 0
  for (const operation of history) {
    if (operation.began > end || operation.ended < began) continue
    const status = String(operation.answer?.status ?? 'none')
    statuses[status] = (statuses[status] ?? 0) + 1
    longest = Math.max(longest, operation.ended - operation.began)
  }
  return { fault, began, ended, statuses, longest, recovery }
}
