import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import { causeOf } from '../db/sqlstate.js'
import type { Tracing } from '../plugins/tracing.js'
import { gracefulStop } from './graceful-stop.js'
import type { LogOutput } from './log-output.js'

/**
 * Time after the grace period in which the rest of the stop must end, in milliseconds. Then the process exits anyway. It takes
 * at most 7.5 seconds: 5 to close the database, 1 for the operations listener and 1.5 for the last spans.
 */
export const CLOSE_MS = 8_000

/** Grace period of the operations listener, which stops after the API, in milliseconds. */
const OPS_GRACE_MS = 1_000

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
  { tracing, logs }: { tracing: Tracing | undefined; logs: LogOutput | undefined }
): void {
  const stops = [gracefulStop(api, graceMs), gracefulStop(ops, OPS_GRACE_MS)]
  closeWithGrace({ delay: graceMs + CLOSE_MS, logger: false, skip: [...CRASHES] }, async ({ err }) => {
    if (err) api.log.fatal({ err: causeOf(err) }, 'stopping after an error that nothing caught')
    ops.drain()
    for (const stop of stops) await stop()
    await tracing?.stop()
    await logs?.written()
  })
}
