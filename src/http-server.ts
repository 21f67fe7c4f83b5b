import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import Fastify, { type FastifyHttpOptions, type FastifyInstance, type FastifyRequest } from 'fastify'
import { refuseConnection } from './broken-request.js'
import { lingerOnClose } from './lingering-close.js'
import { decorateListen } from './listen.js'
import { closeQueuedResponses } from './queued-responses.js'
import { limitUnreadAnswers } from './unread-answers.js'

/** Time that a client has to send a request, in milliseconds. */
const REQUEST_TIMEOUT_MS = 10_000
/**
 * Time without any progress on a connection whose answer is not sent yet, in milliseconds. Every answer begins earlier, so
 * after this time the client does not read it. Node may notice it only after the same time again.
 */
const UNREAD_TIMEOUT_MS = 30_000
/** Interval at which Node checks this timeout, in milliseconds. */
const TIMEOUT_CHECK_MS = 1_000

/** A Fastify instance with the connection handling that both listeners share. Register `required-host` on it. */
export function httpServer(options: FastifyHttpOptions<Server>): FastifyInstance {
  const app = Fastify({
    ...options,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionTimeout: UNREAD_TIMEOUT_MS,
    http: {
      // Node applies the larger of headersTimeout and requestTimeout to the whole request.
      headersTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
      requireHostHeader: false
    },
    // While it closes, the app still answers requests on open connections, each with "Connection: close".
    return503OnClosing: false,
    clientErrorHandler: refuseConnection
  })

  const isFollowed = closeQueuedResponses(app.server)
  lookBeforeTimeout(app.server)
  // By default Node answers an unknown Expect with an empty 417, before any hook runs.
  app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response))
  // This must come before decorateListen. That adds a preClose hook, which waits for open connections to end. Their
  // answers must already have "Connection: close".
  const linger = lingerOnClose(app, isFollowed)
  const countUnread = limitUnreadAnswers(app.log)
  // One hook for all, because each hook takes time for every request.
  app.addHook('onSend', (request, reply, payload, done) => {
    countUnread(request, reply.raw, payload)
    linger(request, reply, () => {
      discardContent(request)
      done()
    })
  })
  decorateListen(app)
  return app
}

/**
 * Discards the content and the headers of a request that has its answer. Otherwise they stay in memory until the client has
 * read the answer, and so do those of all requests queued behind it. As objects, 64 KiB of JSON can take megabytes, and a long
 * query or many headers hundreds of kilobytes.
 */
function discardContent(request: FastifyRequest): void {
  const { raw } = request
  request.body = undefined
  request.query = undefined
  raw.headers = {}
  raw.rawHeaders = []
  // A body that no handler has read.
  if (raw.complete === false || raw.readableLength > 0) raw.resume()
}

/**
 * Closes a connection at its timeout, unless a request has arrived, or the client has read. After a pause of the process, Node
 * runs the timers that are due before it looks at its sockets. So without this, connections in use would be closed.
 */
function lookBeforeTimeout(server: Server): void {
  server.on('timeout', (socket: Socket) => {
    const before = progressOf(socket)
    // This runs after Node has read and written its sockets. A part of a write does not start the timeout again.
    setImmediate(() => {
      if (progressOf(socket) === before) socket.destroy()
      else socket.setTimeout(socket.timeout ?? 0)
    })
  })
}

/**
 * Returns a text that changes when the client has sent or read something. A long answer is one write, of which only Node's
 * handle knows how much is left. Node looks there in the same way before it emits 'timeout'.
 */
function progressOf(socket: Socket): string {
  const { _handle } = socket as { _handle?: { writeQueueSize: number } | null }
  return [socket.bytesRead, socket.writableLength, _handle?.writeQueueSize].join()
}
