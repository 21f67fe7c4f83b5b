import type { FastifyInstance } from 'fastify'

/**
 * Returns what stops the given server: it accepts no more connections, requests in flight have `graceMs` to finish, and
 * connections without one hold nothing. A plain `close()` waits for those that have sent nothing, or half a request.
 * A request is in flight until it has arrived whole and is answered.
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
