import { describe, type Operation, type Request } from './history.js'

/** Deadline for every answer, and for the first success after an outage, in milliseconds. */
export const DEADLINE_MS = 5_000

/** A time in which a replica was stopped on purpose, so that connections to it may fail. */
export interface Downtime {
  replica: number
  from: number
  to: number
}

/** The documented statuses of the harness's requests, besides 503. */
const DOCUMENTED: Record<Request['kind'], number[]> = {
  create: [201],
  update: [200, 404, 412],
  toggle: [200, 404],
  set: [200, 404],
  delete: [204, 404],
  get: [200, 404],
  list: [200]
}

/**
 * Finds wrong answers without looking at their tasks: late, undocumented, or missing although the service was
 * running.
 *
 * @param latest deadline of each answer, in milliseconds
 */
export function checkAnswers(history: Operation[], downtimes: Downtime[], latest: number): string[] {
  return history.flatMap((operation) => {
    const wrong = wrongWith(operation, downtimes, latest)
    return wrong === undefined ? [] : `${wrong}: ${describe(operation)}`
  })
}

function wrongWith(
  { request, replica, began, ended, answer }: Operation,
  downtimes: Downtime[],
  latest: number
): string | undefined {
  const wasDown = downtimes.some((down) => down.replica === replica && began <= down.to && ended >= down.from)
  if (answer === undefined && !wasDown) return 'no answer'
  if (ended - began > latest) return 'late'
  if (answer === undefined) return undefined
  if (answer.status !== 503)
    return DOCUMENTED[request.kind].includes(answer.status) ? undefined : 'undocumented'
  return answer.code === 'unavailable' && answer.hasRetryAfter
    ? undefined
    : 'a 503 without its code or Retry-After'
}
