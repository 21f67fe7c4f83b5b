import type { FastifyBaseLogger } from 'fastify'
import { countEvery } from '../count-every.js'

/** The log has at most one line at info in a minute for each reason. The list is fixed, so no token can fill the log. */
export const REASONS = [
  'no token',
  'no bearer token',
  'malformed',
  'algorithm',
  'critical header',
  'unknown key',
  'signature',
  'expired',
  'not yet valid',
  'issuer',
  'audience',
  'subject'
] as const

/** The reason why a token was refused, for the operator's log and never for the answer. */
export class Refusal {
  constructor(
    readonly reason: (typeof REASONS)[number],
    /** Follows "token refused:" in the log. */
    readonly detail: string
  ) {}
}

const MAX_SHOWN_CHARACTERS = 200

/**
 * Prepares a part of a token for the log. It is short and in printable ASCII, so that it cannot flood the log, forge a
 * line or control a terminal.
 */
export function shown(value: unknown): string {
  if (value === undefined) return 'missing'
  const json = JSON.stringify(typeof value === 'string' ? value.slice(0, MAX_SHOWN_CHARACTERS) : value)
  return json
    .slice(0, MAX_SHOWN_CHARACTERS)
    .replace(/[^\x20-\x7e]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** For each reason, one refusal in this time is logged at info. */
const INFO_INTERVAL_MS = 60_000

/**
 * Logs why tokens are refused. For each reason the first line in a minute is at info, the others are at debug. So a wrong
 * setting shows at once, and a client with bad tokens cannot fill the log.
 */
export function refusalLog() {
  const counters = new Map(REASONS.map((reason) => [reason, countEvery(INFO_INTERVAL_MS)]))
  return (log: FastifyBaseLogger, { reason, detail }: Refusal): void => {
    const refusals = counters.get(reason)?.()
    log[refusals === undefined ? 'debug' : 'info']({ reason, refusals }, `token refused: ${detail}`)
  }
}
