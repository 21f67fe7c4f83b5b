import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

/**
 * Proxies and clients send UUIDs, hex, or letters with separators. None of these characters is special in a terminal, a
 * shell, a query or a page.
 */
const SAFE_ID = /^[A-Za-z0-9._:-]{1,64}$/

/** Returns the request's `X-Request-Id` if that is safe, otherwise a new id. */
export function requestId({ headers }: IncomingMessage): string {
  const own = headers['x-request-id']
  return typeof own === 'string' && SAFE_ID.test(own) ? own : randomUUID()
}
