import type { FastifyInstance } from 'fastify'

/** Idle connections are closed if no request has arrived for this time, in milliseconds. */
const QUIET_MS = 250

/**
 * Returns a function that stops the server. It accepts no more connections, and waits at most `graceMs` for requests in
 * flight, and for further ones on open connections. Then it closes every connection. `close()` alone would also wait for
 * connections that have sent nothing or half a request.
 *
 * A request is in flight until it has arrived completely and its response has emitted 'close'.
 */
export function gracefulStop(app: FastifyInstance, graceMs: number): () => Promise<void> {
  let requests = 0
  let inFlight = 0
  let idle = () => {}
  const answered = () => {
    inFlight--
    if (inFlight === 0) idle()
  }
  app.server.on('request', (request, response) => {
    requests++
    inFlight++
    const { socket } = request
    response.once('close', () => {
      if (request.complete || socket.destroyed) answered()
      else socket.once('close', answered)
    })
  })
  return async () => {
    const end = performance.now() + graceMs
    // `close()` would call it at once. Then a request that is on its way, or not read yet, gets a reset instead of an answer.
    // Its client cannot tell whether it was carried out. Every answer now closes its connection.
    app.server.closeIdleConnections = () => {}
    let seen = requests
    let quietAt = performance.now() + QUIET_MS
    const closeIfQuiet = () => {
      const now = performance.now()
      if (inFlight > 0 || requests !== seen) quietAt = now + QUIET_MS
      seen = requests
      if (now > Math.min(quietAt, end)) app.server.closeAllConnections()
    }
    // Node runs the timers that are due, then reads its sockets, and then runs setImmediate. So a request that has arrived
    // counts.
    const timer = setInterval(() => setImmediate(closeIfQuiet), 20)
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
