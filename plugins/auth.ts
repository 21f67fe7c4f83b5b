import jwt from '@fastify/jwt'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { createRemoteJWKSet, customFetch, errors, exportSPKI, type FetchImplementation } from 'jose'
import type { KeySource } from '../src/config.js'
import type { ResolvedAuth } from '../src/development-secret.js'
import { Forbidden, InvalidToken, MissingToken, Unavailable } from '../src/errors.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** An onRequest hook: 401 unless the request carries a valid token. Sets `request.user`. */
    authenticate(request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void
    /** A preHandler hook: 403 unless the path's `userId` is the token's `sub`. */
    requireOwner(request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void
  }
}

declare module '@fastify/jwt' {
  interface FastifyJWT {
    payload: Record<string, unknown>
    user: { sub: string }
  }
}

/** Tolerated difference between the issuer's clock and ours. */
const CLOCK_TOLERANCE_MS = 5_000
/** A key server that hangs costs a request this long, once: requests that wait meanwhile share the fetch. */
const JWKS_TIMEOUT_MS = 2_500
/** A key that was removed at its server is refused after this time at the latest. */
const JWKS_MAX_AGE_MS = 240_000
/** Between two fetches for a `kid` that we do not know: how long a new key may wait for its first use. */
const JWKS_COOLDOWN_MS = 10_000
/** Between any two fetches: a key server that fails gets no more of them because more is asked of us. */
const JWKS_PAUSE_MS = 1_000

/** Requests that may wait for the key server at once: more would only grow a queue while it hangs. */
const MAX_VERIFYING = 1_000

/** How long a verified token is taken for valid without being looked at again, at most. */
const VERIFIED_MS = 30_000
/** How many verified tokens are remembered, each of at most `VERIFIED_CHARACTERS`: 20 MB in all. */
const VERIFIED_TOKENS = 5_000
const VERIFIED_CHARACTERS = 4_096

const ASYMMETRIC = ['RS256', 'PS256', 'ES256', 'EdDSA'] as const

/**
 * Decorates `app.authenticate` and `app.requireOwner`.
 *
 * @fastify/jwt verifies signature, `exp` and `nbf`. It lets a token pass that has no `exp`, `iss` or `aud` at all, and
 * a `sub` of any kind, so those are checked here.
 */
export default fp<{ auth: ResolvedAuth }>(
  async (app, { auth }) => {
    await app.register(jwt, keyOptions(auth.keys))

    async function verify(authorization: string): Promise<Claims> {
      const token = bearerToken(authorization)
      if (token === undefined) throw new MissingToken()
      let claims: unknown
      try {
        claims = await withoutStack(() => app.jwt.verify(token))
      } catch (error) {
        throw outageOf(error) ?? new InvalidToken()
      }
      if (!isAcceptable(claims, auth)) throw new InvalidToken()
      return { sub: claims.sub, exp: claims.exp }
    }

    const verified = recentlyVerified()
    let verifying = 0

    app.decorate('authenticate', (request, _reply, done) => {
      const { authorization } = request.headers
      if (authorization === undefined) return done(new MissingToken())
      const claims = verified.get(authorization)
      if (claims !== undefined) {
        request.user = claims
        return done()
      }
      if (verifying >= MAX_VERIFYING) return done(new Unavailable())
      verifying++
      verify(authorization)
        .finally(() => verifying--)
        .then((claims) => {
          verified.add(authorization, claims)
          request.user = claims
          done()
        }, done)
    })

    app.decorate('requireOwner', (request, _reply, done) => {
      done(isOwner(request) ? undefined : new Forbidden())
    })
  },
  { name: 'auth' }
)

/**
 * Remembers for a moment which headers carried a valid token. A client sends the same one again and again, and verifying
 * it takes 7 µs with HS256, the cheapest algorithm; finding it here takes less than one.
 *
 * Never beyond `exp` and its tolerance, and a removed key is refused after `JWKS_MAX_AGE_MS` and `VERIFIED_MS` together:
 * under 5 minutes.
 * Tokens that were refused are not remembered, so nobody can fill it without an issuer's help.
 */
function recentlyVerified() {
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

/** Whether the path names the token's own user: exact equality, after the router's one percent-decoding. */
export function isOwner({ params, user }: FastifyRequest): boolean {
  return (params as { userId: string }).userId === user.sub
}

function keyOptions(keys: Exclude<KeySource, { kind: 'development' }>) {
  const verify = { clockTolerance: CLOCK_TOLERANCE_MS }
  return keys.kind === 'secret'
    ? { secret: keys.secret, verify: { ...verify, algorithms: ['HS256' as const] } }
    : { secret: remoteKeys(keys.url), verify: { ...verify, algorithms: [...ASYMMETRIC] } }
}

/** Finds the public key of a token at the one URL that the operator named; nothing in a token can name another. */
function remoteKeys(url: string) {
  const find = createRemoteJWKSet(new URL(url), {
    timeoutDuration: JWKS_TIMEOUT_MS,
    cacheMaxAge: JWKS_MAX_AGE_MS,
    cooldownDuration: JWKS_COOLDOWN_MS,
    // The cooldown counts from the last fetch that succeeded.
    [customFetch]: atIntervals(JWKS_PAUSE_MS)
  })
  // jose hands out the same key object until it fetches again, so each is converted once.
  const pems = new WeakMap<object, string>()

  return async ({ header }: { header: { alg?: unknown; kid?: unknown } }): Promise<string> => {
    const { alg, kid } = header
    // Before anything is fetched for it.
    if (!ASYMMETRIC.some((allowed) => allowed === alg)) throw new InvalidToken()
    try {
      const key = await find({ alg: alg as string, ...(kid !== undefined && { kid: kid as string }) })
      let pem = pems.get(key)
      if (pem === undefined) {
        pem = await exportSPKI(key)
        pems.set(key, pem)
      }
      return pem
    } catch (error) {
      const noSuchKey =
        error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys
      throw noSuchKey ? new InvalidToken() : new Unavailable({ cause: error })
    }
  }
}

/** `fetch`, but it fails at once when the last call was less than `milliseconds` ago. */
function atIntervals(milliseconds: number): FetchImplementation {
  let last = Number.NEGATIVE_INFINITY
  return async (url, options) => {
    const now = Date.now()
    if (now - last < milliseconds) throw new Error('the keys could not be fetched a moment ago')
    last = now
    return fetch(url, options)
  }
}

/**
 * Calls a function whose errors need no stack. The JWT library makes an error of each bad token, and unwinding the stack
 * for it took a quarter of the time that the whole refusal takes.
 *
 * @returns what the function returns; with keys from a server this is a promise, whatever the type says
 */
function withoutStack<T>(call: () => T): T {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return call()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

/** The outage behind a rejected token, when it was not the token's fault. */
function outageOf(error: unknown): Error | undefined {
  // fast-jwt wraps what the key function throws.
  const { originalError } = error as { originalError?: unknown }
  return originalError instanceof Unavailable ? originalError : undefined
}

/** The scheme is case-insensitive, one or more spaces follow, and the token is base64url with dots: RFC 9110, section 11.4, and RFC 6750, section 2.1. */
function bearerToken(header: string): string | undefined {
  return /^bearer +(\S+) *$/i.exec(header)?.[1]
}

/** What is known of a token that is valid. */
interface Claims {
  sub: string
  /** Seconds since 1970, with fractions. */
  exp: number
}

const MAX_SUB_CHARACTERS = 255

function isAcceptable(claims: unknown, { issuer, audience }: ResolvedAuth): claims is Claims {
  if (typeof claims !== 'object' || claims === null) return false
  const { exp, sub, iss, aud } = claims as Record<string, unknown>
  return (
    Number.isFinite(exp) &&
    isUserId(sub) &&
    (issuer === undefined || iss === issuer) &&
    // RFC 7519, section 4.1.3: one audience or a list of them.
    (audience === undefined || aud === audience || (Array.isArray(aud) && aud.includes(audience)))
  )
}

/**
 * PostgreSQL stores neither NUL nor lone surrogates as they are; two users whose ids differ in nothing else would
 * become one.
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
