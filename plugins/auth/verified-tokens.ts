import { CLOCK_TOLERANCE_MS, type Claims } from './claims.js'

/** How long a verified token is taken for valid without being looked at again, at most. */
const VERIFIED_MS = 30_000
/** How many verified tokens are remembered, each of at most `VERIFIED_CHARACTERS`: 20 MB in all. */
const VERIFIED_TOKENS = 5_000
const VERIFIED_CHARACTERS = 4_096

/**
 * Remembers for a moment which headers carried a valid token. A client sends the same one again and again, and verifying
 * it takes 7 µs with HS256, the cheapest algorithm; finding it here takes less than one.
 *
 * No entry outlives its token's `exp` and tolerance. A removed key is refused after its set's largest age and
 * `VERIFIED_MS` together: under 5 minutes. Refused tokens are not remembered, so only an issuer's users can fill it.
 */
export function verifiedTokens() {
  const entries = new Map<string, { claims: Claims; until: number }>()
  return {
    get(authorization: string): Claims | undefined {
      const entry = entries.get(authorization)
      if (entry === undefined) return undefined
      if (Date.now() < entry.until) return entry.claims
      entries.delete(authorization)
      return undefined
    },
    add(authorization: string, claims: Claims): void {
      if (authorization.length > VERIFIED_CHARACTERS) return
      // The oldest goes first: a Map keeps the order in which its keys came.
      if (entries.size >= VERIFIED_TOKENS) entries.delete(entries.keys().next().value as string)
      const until = Math.min(Date.now() + VERIFIED_MS, claims.exp * 1000 + CLOCK_TOLERANCE_MS)
      entries.set(authorization, { claims, until })
    }
  }
}
