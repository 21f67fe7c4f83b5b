import type { FastifyInstance } from 'fastify'

/** Time after the grace period in which the rest of the stop must end, in milliseconds. Then the process exits anyway. */
export const CLOSE_MS = 8_000

/**
 * Returns a function that stops the server. It accepts no more connections, waits at most `graceMs` for requests in
 * flight, and then closes every connection. `close()` alone would also wait for connections that have sent nothing or
 * half a request.
 *
 * A request is in flight until it has arrived completely and is answered.
 */
export function gracefulStop(app: FastifyInstance, graceMs: number): () => Promise<void> {
  let inFlight = 0
  app.server.on('request', (request, response) => {
    inFlight++
    const { socket } = request
    response.once('close', () => {
      if (request.complete || socket.destroyed) inFlight--
      else socket.once('close', () => inFlight--)
    })
  })
  return async () => {
    const end = performance.now() + graceMs
    const timer = setInterval(() => {
      if (inFlight === 0 || performance.now() > end) app.server.closeAllConnections()
    }, 20)
    await app.close()
    clearInterval(timer)
  }
}
