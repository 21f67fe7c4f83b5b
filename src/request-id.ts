import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

/**
 * The ids that proxies and clients make: UUIDs, hex, letters with separators. Nothing in them means anything to a
 * terminal, a shell, a query or a page, so the log and the answer can carry them.
 */
const SANE = /^[A-Za-z0-9._:-]{1,64}$/

/** The id of a request: its own `X-Request-Id` if that is sane, or else a new one. */
export function requestId({ headers }: IncomingMessage): string {
  const own = headers['x-request-id']
  return typeof own === 'string' && SANE.test(own) ? own : randomUUID()
}
