import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'

/** How much a client may send after the last answer on its connection, in bytes. */
const MAX_BYTES = 32 * 1024 * 1024
/** How long a client may take to close its side once that answer was sent, in milliseconds. */
const MAX_MS = 10_000

/**
 * Lets an answer arrive although the client still sends. When a socket is closed with data unread, TCP resets the
 * connection, and the reset can overtake the answer (RFC 9112, section 9.6).
 *
 * Therefore an answer to a request that has not arrived whole is the last one on its connection, and every connection
 * is closed in stages.
 */
export function lingerOnClose(app: FastifyInstance): void {
  // Node's HTTP server calls this after the last answer on a connection.
  app.server.on('connection', (socket: Socket) => {
    socket.destroySoon = () => closeInStages(socket)
  })

  let closing = false
  app.addHook('preClose', (done) => {
    closing = true
    done()
  })
  app.addHook('onSend', ({ raw }, reply, _payload, done) => {
    const send = () => {
      if (closing || isIncomplete(raw)) reply.header('Connection', 'close')
      done()
    }
    // A body that came together with its head has been parsed by then.
    if (isIncomplete(raw)) setImmediate(send)
    else send()
  })
}

/** `complete` is set when the end of the message was parsed; a request by `inject` has none. */
function isIncomplete({ complete, headers }: IncomingMessage): boolean {
  const hasBody = headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined
  return hasBody && complete === false
}

/** Ends our side of the connection, and discards what still comes until the client has closed its own. */
export function closeInStages(socket: Socket): void {
  if (socket.destroyed) return
  // The HTTP parser gets no more of it: nothing that comes now is a request.
  socket.removeAllListeners('data')
  const limit = socket.bytesRead + MAX_BYTES
  socket.on('data', () => {
    if (socket.bytesRead > limit) socket.destroy()
  })
  // The parser read past the stream, which still waits for its first read to end: without this it never starts another.
  socket.push('')
  socket.resume()
  socket.end(() => {
    const timer = setTimeout(() => socket.destroy(), MAX_MS)
    socket.once('close', () => clearTimeout(timer))
  })
}
