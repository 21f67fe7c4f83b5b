import type { FastifyInstance } from 'fastify'

/**
 * Returns a function that stops the server. It accepts no more connections, waits at most `graceMs` for requests in
 * flight, and then closes every connection. `close()` alone would also wait for connections that have sent nothing or
 * half a request.
 *
 * A request is in flight until it has arrived completely and its response has emitted 'close'.
 */
export function gracefulStop(app: FastifyInstance, graceMs: number): () => Promise<void> {
  let inFlight = 0
  let idle = () => {}
  const answered = () => {
    inFlight--
    if (inFlight === 0) idle()
  }
  app.server.on('request', (request, response) => {
    inFlight++
    const { socket } = request
    response.once('close', () => {
      if (request.complete || socket.destroyed) answered()
      else socket.once('close', answered)
    })
  })
  return async () => {
    const end = performance.now() + graceMs
    const closeIfDone = () => {
      if (inFlight === 0 || performance.now() > end) app.server.closeAllConnections()
    }
    // Node runs the timers that are due, then reads its sockets, and then runs setImmediate. So a request that has arrived
    // counts.
    const timer = setInterval(() => setImmediate(closeIfDone), 20)
    await app.close()
    clearInterval(timer)
    // Node's server is closed a moment before the last responses emit 'close', which ends their spans.
    if (inFlight > 0) {
      await new Promise<void>((resolve) => {
        idle = resolve
      })
    }
  }
}
