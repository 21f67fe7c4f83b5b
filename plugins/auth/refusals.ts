import type { FastifyBaseLogger } from 'fastify'

/** The kinds of refusal. A token cannot name one of its own, so the log below is bounded. */
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

export type Reason = (typeof REASONS)[number]

/** Why a token was refused: for the operator's log, never for the answer. */
export class Refusal {
  constructor(
    readonly reason: Reason,
    /** Continues a sentence that begins with "token refused:". */
    readonly detail: string
  ) {}
}

const MAX_SHOWN_CHARACTERS = 200

/**
 * A part of a token, for the log. It is short and in printable ASCII, so that it can neither flood the log, nor forge a
 * line, nor control a terminal.
 */
export function shown(value: unknown): string {
  if (value === undefined) return 'missing'
  const json = JSON.stringify(typeof value === 'string' ? value.slice(0, MAX_SHOWN_CHARACTERS) : value)
  return json
    .slice(0, MAX_SHOWN_CHARACTERS)
    .replace(/[^\x20-\x7e]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** The first refusal of each kind in this time is logged at info. */
const INFO_INTERVAL_MS = 60_000

/**
 * Logs why tokens are refused: one line each at debug, of which the first of each kind in a minute is at info. So a wrong
 * setting shows at once, and a client that sends bad tokens cannot fill the log.
 */
export function refusalLog() {
  const kinds = new Map<Reason, { loggedAt: number; refusals: number }>()
  return (log: FastifyBaseLogger, { reason, detail }: Refusal): void => {
    const now = performance.now()
    const kind = kinds.get(reason) ?? { loggedAt: Number.NEGATIVE_INFINITY, refusals: 0 }
    kinds.set(reason, kind)
    kind.refusals++
    const message = `token refused: ${detail}`
    if (now < kind.loggedAt + INFO_INTERVAL_MS) {
      log.debug({ reason }, message)
      return
    }
    // How many there were of this kind since the last line at info.
    log.info({ reason, refusals: kind.refusals }, message)
    kind.loggedAt = now
    kind.refusals = 0
  }
}
