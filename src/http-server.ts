import type { Server } from 'node:http'
import Fastify, { type FastifyHttpOptions, type FastifyInstance } from 'fastify'
import { refuseConnection } from './broken-request.js'
import { lingerOnClose } from './lingering-close.js'
import { decorateListen } from './listen.js'

/** How long a client may take to send a request, in milliseconds. */
const REQUEST_TIMEOUT_MS = 10_000
/** How often Node looks for requests that took longer, in milliseconds. */
const TIMEOUT_CHECK_MS = 1_000

/** A Fastify instance with the connection handling that both listeners share. Register `required-host` on it. */
export function httpServer(options: FastifyHttpOptions<Server>): FastifyInstance {
  const app = Fastify({
    ...options,
    requestTimeout: REQUEST_TIMEOUT_MS,
    http: {
      // Node takes the larger of its two limits for the whole request, and by default looks every 30 seconds.
      headersTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
      requireHostHeader: false
    },
    // While it closes, the app still answers what arrives on open connections, each with "Connection: close".
    return503OnClosing: false,
    clientErrorHandler: refuseConnection
  })

  // Node would answer an unknown Expect with an empty 417, before anything here is asked.
  app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response))
  // First, for the other's hook on closing waits for connections, whose answers must say by then that they are the last.
  lingerOnClose(app)
  decorateListen(app)
  return app
}
