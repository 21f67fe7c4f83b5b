import type { ServerResponse } from 'node:http'
import type { FastifyBaseLogger } from 'fastify'
import { countEvery } from '../plugins/count-every.js'

/** Most memory for answers that clients have not read yet, in bytes. */
const MAX_UNREAD = 64 * 1024 * 1024
/** A shorter answer counts only if it is queued, in bytes: a connection has at most one that is not queued. */
const SMALL = 16_384
/** Memory of a queued answer and its request, without the payload, in bytes. It was 5 KB when measured. */
const QUEUED = 8_192
/** Minimum time between two log lines, in milliseconds. */
const LOG_INTERVAL_MS = 60_000

/**
 * Bounds the memory for answers that clients do not read. If there are too many, it closes the connection that has waited for
 * the longest time. A client that reads its answers has them much earlier.
 *
 * An answer is queued while earlier requests of its connection are not answered (pipelining). One packet can have hundreds of
 * requests.
 *
 * @returns a function that must be called before each answer is sent
 */
export function limitUnreadAnswers(
  log: FastifyBaseLogger
): (response: ServerResponse, payload: unknown) => void {
  /** The oldest first. */
  const unread = new Map<ServerResponse, number>()
  let total = 0
  const closed = countEvery(LOG_INTERVAL_MS)

  function add(response: ServerResponse, payload: unknown): void {
    // After an error in another hook, an answer is sent a second time.
    remove(response)
    const bytes =
      (typeof payload === 'string' ? Buffer.byteLength(payload) : 0) + (response.socket === null ? QUEUED : 0)
    unread.set(response, bytes)
    total += bytes
    response.once('close', () => remove(response))
    for (const oldest of unread.keys()) {
      if (total <= MAX_UNREAD) return
      remove(oldest)
      oldest.req.socket.destroy()
      const count = closed()
      if (count !== undefined)
        log.warn({ count }, 'connections were closed: their clients did not read the answers')
    }
  }

  function remove(response: ServerResponse): void {
    total -= unread.get(response) ?? 0
    unread.delete(response)
  }

  return (response, payload) => {
    // The client left before the answer. No further 'close' will come.
    if (response.closed) return
    const isLong = typeof payload === 'string' && payload.length > SMALL
    if (isLong || response.socket === null) add(response, payload)
  }
}
