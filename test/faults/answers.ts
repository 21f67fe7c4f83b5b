import { describe, type Operation, type Request } from './history.js'

/** By when the service begins every answer and, after an outage, works again, in milliseconds. */
export const DEADLINE_MS = 5_000

/** A time in which a replica was down on purpose, so that connections to it may fail. */
export interface Downtime {
  replica: number
  from: number
  to: number
}

/** The statuses that the documentation gives each request of the harness, besides 503. */
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
 * What is wrong with the answers by themselves: late, undocumented, or none although the service was there.
 *
 * @param latest by when each must be there, in milliseconds
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
