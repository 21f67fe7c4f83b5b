import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import { causeOf } from '../db/sqlstate.js'
import type { Tracing } from '../plugins/tracing.js'

/** Time after the grace period in which the rest of the stop must end, in milliseconds. Then the process exits anyway. */
export const CLOSE_MS = 8_000

/**
 * A handler for one of these signals keeps the process alive: the failed instruction runs again after it, for ever.
 * Therefore close-with-grace must skip them.
 */
const CRASHES = ['SIGILL', 'SIGTRAP', 'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGSEGV'] as const

/** Ends the process on SIGTERM, a like signal or an error that nothing caught. First `/ready` answers 503. */
export function stopOnSignal(
  api: FastifyInstance,
  ops: FastifyInstance,
  graceMs: number,
  tracing: Tracing | undefined
): void {
  const stops = [gracefulStop(api, graceMs), gracefulStop(ops, graceMs)]
  closeWithGrace({ delay: graceMs + CLOSE_MS, logger: false, skip: [...CRASHES] }, async ({ err }) => {
    if (err) api.log.fatal({ err: causeOf(err) }, 'stopping after an error that nothing caught')
    ops.drain()
    for (const stop of stops) await stop()
    await tracing?.stop()
  })
}

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
    const timer = setInterval(() => {
      if (inFlight === 0 || performance.now() > end) app.server.closeAllConnections()
    }, 20)
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
