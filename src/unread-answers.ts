import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import { countEvery } from '../plugins/count-every.js'

/** Most memory for answers that clients have not read yet, in bytes. */
const MAX_UNREAD = 64 * 1024 * 1024
/** A shorter answer counts only if it is queued, in bytes: a connection has at most one that is not queued. */
const SMALL = 16_384
/** Memory of a queued answer and its request, without payload and URL, in bytes. It was 5 to 9 KB when measured. */
export const QUEUED = 8_192
/** Most memory of a streamed answer whose list was read to its end, in bytes: the buffers of its stream and its response. */
const STREAMED = 163_840
/** Minimum time between two log lines, in milliseconds. */
const LOG_INTERVAL_MS = 60_000

interface Unread {
  socket: Socket
  /** The token's `sub`, or undefined without a valid token. */
  user: string | undefined
  bytes: number
}

/**
 * Bounds the memory for answers that clients do not read. If there are too many, the user who has the most loses the
 * connection that has waited for the longest time. A client that reads its answers has them much earlier, and a user with
 * less than others loses nothing. All requests without a valid token count as one user's.
 *
 * An answer is queued while earlier requests of its connection are not answered (pipelining). One packet can have hundreds of
 * requests.
 *
 * @returns a function that must be called before each answer is sent
 */
export function limitUnreadAnswers(
  log: FastifyBaseLogger
): (request: FastifyRequest, response: ServerResponse, payload: unknown) => void {
  /** The oldest first. */
  const unread = new Map<ServerResponse, Unread>()
  const bytesByUser = new Map<string | undefined, number>()
  let total = 0
  const closed = countEvery(LOG_INTERVAL_MS)

  function add(response: ServerResponse, one: Unread): void {
    // After an error in another hook, an answer is sent a second time.
    remove(response)
    unread.set(response, one)
    change(one.user, one.bytes)
    // A response that does not come from a socket, as by `inject`, has no 'close'.
    response.once('finish', () => remove(response)).once('close', () => remove(response))
    while (total > MAX_UNREAD) closeOldest()
  }

  function remove(response: ServerResponse): void {
    const one = unread.get(response)
    if (one === undefined) return
    unread.delete(response)
    change(one.user, -one.bytes)
  }

  function change(user: string | undefined, bytes: number): void {
    total += bytes
    const left = (bytesByUser.get(user) ?? 0) + bytes
    if (left > 0) bytesByUser.set(user, left)
    else bytesByUser.delete(user)
  }

  function closeOldest(): void {
    const socket = oldestOf(userWithMost())
    for (const [response, one] of unread) if (one.socket === socket) remove(response)
    socket?.destroy()
    const count = closed()
    if (count !== undefined)
      log.warn({ count }, 'connections were closed: their clients did not read the answers')
  }

  function userWithMost(): string | undefined {
    let user: string | undefined
    let most = 0
    for (const [one, bytes] of bytesByUser) {
      if (bytes <= most) continue
      user = one
      most = bytes
    }
    return user
  }

  function oldestOf(user: string | undefined): Socket | undefined {
    for (const one of unread.values()) if (one.user === user) return one.socket
    return undefined
  }

  return (request, response, payload) => {
    // The client left before the answer. No further 'close' will come.
    if (response.closed) return
    const isQueued = response.socket === null
    const isLong = typeof payload === 'string' ? payload.length > SMALL : payload instanceof Readable
    if (!isLong && !isQueued) return
    const bytes = bytesOf(payload) + (isQueued ? QUEUED + request.url.length : 0)
    add(response, { socket: response.req.socket, user: userOf(request), bytes })
  }
}

function bytesOf(payload: unknown): number {
  if (typeof payload === 'string') return Buffer.byteLength(payload)
  return payload instanceof Readable ? STREAMED : 0
}

/** The operations listener has no users. */
const userOf = ({ user }: { user?: { sub: string } | null }) => user?.sub
