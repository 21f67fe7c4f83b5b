import type { AuthOptions } from './options.js'
import { Refusal, shown } from './refusals.js'

/** The claims of a valid token that the service uses. */
export interface Claims {
  sub: string
  /** Seconds since 1970, with fractions. */
  exp: number
}

/** Tolerated difference between the issuer's clock and ours, in milliseconds. */
export const CLOCK_TOLERANCE_MS = 5_000

const MAX_SUB_CHARACTERS = 255

/**
 * Checks the claims of a token with a valid signature: RFC 7519, section 4.1. `exp` and `sub` are required, `iss` and
 * `aud` only if the operator has set them.
 */
export function checkClaims(
  { exp, nbf, iss, aud, sub }: Record<string, unknown>,
  { issuer, audience }: Pick<AuthOptions, 'issuer' | 'audience'>
): Claims | Refusal {
  const now = Date.now()
  if (!isNumber(exp)) return new Refusal('expired', `exp is ${shown(exp)}, not a number`)
  if (now > exp * 1000 + CLOCK_TOLERANCE_MS) return new Refusal('expired', `it expired at ${timestamp(exp)}`)
  if (nbf !== undefined) {
    if (!isNumber(nbf)) return new Refusal('not yet valid', `nbf is ${shown(nbf)}, not a number`)
    if (now < nbf * 1000 - CLOCK_TOLERANCE_MS) {
      return new Refusal('not yet valid', `it is valid from ${timestamp(nbf)}`)
    }
  }
  if (issuer !== undefined && iss !== issuer) {
    return new Refusal('issuer', `iss is ${shown(iss)}, JWT_ISSUER is ${shown(issuer)}`)
  }
  // `aud` is one audience, or a list of them.
  if (audience !== undefined && aud !== audience && !(Array.isArray(aud) && aud.includes(audience))) {
    return new Refusal('audience', `aud is ${shown(aud)}, JWT_AUDIENCE is ${shown(audience)}`)
  }
  return isUserId(sub)
    ? { sub, exp }
    : // The log must not contain user ids, so this line does not show the value.
      new Refusal('subject', `sub is not a text of 1 to ${MAX_SUB_CHARACTERS} characters that can be stored`)
}

const isNumber = (value: unknown): value is number => Number.isFinite(value)

function timestamp(seconds: number): string {
  const date = new Date(seconds * 1000)
  return Number.isNaN(date.getTime()) ? `second ${seconds}` : date.toISOString()
}

/**
 * PostgreSQL cannot store NUL or lone surrogates. Replacing them would be dangerous: two users whose ids differ only in
 * such a character would become one.
 */
function isUserId(sub: unknown): sub is string {
  return (
    typeof sub === 'string' &&
    sub !== '' &&
    (sub.length <= MAX_SUB_CHARACTERS || [...sub].length <= MAX_SUB_CHARACTERS) &&
    !sub.includes('\0') &&
    sub.isWellFormed()
  )
}
