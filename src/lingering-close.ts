import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

/** Limit for the data that a client sends after the last answer on its connection, in bytes. */
const MAX_BYTES = 32 * 1024 * 1024
/** Time that a client has to close its side after that answer, in milliseconds. */
const MAX_MS = 10_000

/**
 * Delivers an answer to a client that is still sending. If a socket is closed with unread data, TCP resets the
 * connection, and the reset can overtake the answer (RFC 9112, section 9.6).
 *
 * Therefore an answer to an incomplete request is the last one on its connection, and every connection is closed in
 * stages.
 *
 * @param isFollowed returns true if later requests of the connection wait behind this response
 * @returns a function that must be called before each answer is sent
 */
export function lingerOnClose(
  app: FastifyInstance,
  isFollowed: (response: ServerResponse) => boolean
): (request: FastifyRequest, reply: FastifyReply, done: () => void) => void {
  // Node's HTTP server calls this after the last answer on a connection.
  app.server.on('connection', (socket: Socket) => {
    socket.destroySoon = () => closeInStages(socket)
  })

  let closing = false
  app.addHook('preClose', (done) => {
    closing = true
    done()
  })
  return ({ raw }, reply, done) => {
    const send = () => {
      // An answer with this header is the last one. The requests that wait behind it would get none.
      const isLast = closing && !isFollowed(reply.raw)
      if (isLast || isIncomplete(raw) || hasChunksOfHttp10(raw)) reply.header('Connection', 'close')
      done()
    }
    // setImmediate lets Node parse a body that arrived together with its head.
    if (isIncomplete(raw)) setImmediate(send)
    else send()
  }
}

/** Node sets `complete` when it has parsed the end of the message. A request by `inject` does not have it. */
function isIncomplete({ complete, headers }: IncomingMessage): boolean {
  const hasBody = headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined
  return hasBody && complete === false
}

/** RFC 9112, section 6.1: such a request is ambiguous, so it must be the last one. */
const hasChunksOfHttp10 = ({ httpVersion, headers }: IncomingMessage) =>
  httpVersion === '1.0' && headers['transfer-encoding'] !== undefined

/** Ends our side of the connection, and discards the client's data until it closes its side. */
export function closeInStages(socket: Socket): void {
  if (socket.destroyed) return
  // Later data must not reach the HTTP parser: it is no request.
  socket.removeAllListeners('data')
  const limit = socket.bytesRead + MAX_BYTES
  socket.on('data', () => {
    if (socket.bytesRead > limit) socket.destroy()
  })
  // Node's HTTP parser took the data from the socket's handle, so the stream still waits for its first read. This push
  // ends that read, and then the stream reads by itself.
  socket.push('')
  socket.resume()
  socket.end(() => {
    const timer = setTimeout(() => socket.destroy(), MAX_MS)
    socket.once('close', () => clearTimeout(timer))
  })
}
