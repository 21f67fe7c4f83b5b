import jwt from '@fastify/jwt'
import type { FastifyInstance } from 'fastify'
import { countsOf } from '../metrics.js'
import { checkClaims } from './claims.js'
import { type KeyHint, remoteKeys } from './jwks.js'
import type { AuthOptions } from './options.js'
import { Refusal, shown } from './refusals.js'

type Payload = Record<string, unknown>

const SYMMETRIC = ['HS256']
/** `Ed25519` is the name of RFC 9864 for `EdDSA` with that curve. */
const ASYMMETRIC = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519']

/**
 * Registers @fastify/jwt for the source of keys.
 *
 * @returns a function that checks a token's signature and `crit`. It throws Unavailable if there are no keys
 */
export async function signatureCheck(app: FastifyInstance, auth: AuthOptions) {
  const { keys } = auth
  await app.register(jwt, {
    // If the keys come from a URL, each call of `verify` passes its key instead.
    secret: keys.kind === 'secret' ? keys.secret : () => Promise.reject(new Error('no key was given')),
    decode: { complete: true },
    verify: {
      // The library supports Ed25519, but its types lack the name.
      algorithms: (keys.kind === 'secret' ? SYMMETRIC : ASYMMETRIC) as 'HS256'[],
      // checkClaims does this. The library accepts tokens without `exp`, and throws untyped errors for invalid values.
      ignoreExpiration: true,
      ignoreNotBefore: true
    }
  })
  return keys.kind === 'secret'
    ? (token: string) => verifyWith(app, token, 'JWT_SECRET')
    : verifyWithKeysAt(app, keys.url, auth)
}

/** Checks signatures with the keys at the operator's URL. A token cannot select another URL. */
function verifyWithKeysAt(app: FastifyInstance, url: string, auth: AuthOptions) {
  const fetches = countsOf(app.metrics, {
    name: 'auth_key_fetches_total',
    help: 'Fetches of the keys at JWKS_URL, by their outcome.',
    label: 'outcome',
    values: ['success', 'failure']
  })
  const keys = remoteKeys(url, (outcome) => fetches[outcome]++)
  app.addHook('onReady', (done) => {
    // The start does not wait for this check: the service may start before its issuer.
    void keys.check(ASYMMETRIC).then((warning) => {
      if (warning !== undefined) app.log.warn(`${warning}; tokens cannot be verified until that changes`)
    })
    done()
  })

  function verifyWithEach(token: string, pems: string[], { alg, kid }: KeyHint): Payload | Refusal {
    const fitting = `key at JWKS_URL that fits kid ${shown(kid)} and alg ${shown(alg)}`
    let result: Payload | Refusal = new Refusal('unknown key', `there is no ${fitting}`)
    for (const key of pems) {
      result = verifyWith(app, token, `any ${fitting}`, { key })
      if (!(result instanceof Refusal && result.reason === 'signature')) break
    }
    return result
  }

  return async (token: string): Promise<Payload | Refusal> => {
    const since = performance.now()
    const decoded = decode(app, token)
    if (decoded instanceof Refusal) return decoded
    const { alg, kid } = decoded.header
    // A token with another algorithm must not cause a fetch.
    if (!isAsymmetric(alg)) return wrongAlgorithm(alg, ASYMMETRIC)
    if (kid !== undefined && typeof kid !== 'string') {
      return new Refusal('unknown key', `kid is ${shown(kid)}, not a text`)
    }
    const hint: KeyHint = { alg, ...(kid !== undefined && { kid }) }
    for (;;) {
      const result = verifyWithEach(token, await keys.find(hint, since), hint)
      if (!(result instanceof Refusal)) return result
      // The token's key may be newer than the current ones. Without a kid, all current keys that fit are tried, so the
      // reason is then `signature`.
      const mayBeNew = result.reason === 'unknown key' || (result.reason === 'signature' && kid === undefined)
      // A token with invalid claims stays invalid with newer keys, so it causes no fetch. Clients may repeat an expired
      // token for a long time.
      if (!mayBeNew || checkClaims(decoded.payload, auth) instanceof Refusal) return result
      if (!(await keys.renew(since))) return result
    }
  }
}

const isAsymmetric = (alg: unknown): alg is string => ASYMMETRIC.some((one) => one === alg)

/** @param signer the expected signer, for the log */
function verifyWith(
  app: FastifyInstance,
  token: string,
  signer: string,
  options?: { key: string }
): Payload | Refusal {
  try {
    return withoutStack(() => app.jwt.verify<Payload>(token, options))
  } catch (error) {
    switch ((error as { code?: string }).code) {
      case 'FAST_JWT_INVALID_SIGNATURE':
      case 'FAST_JWT_MISSING_SIGNATURE':
      case 'FAST_JWT_VERIFY_ERROR':
        return new Refusal('signature', `it is not signed by ${signer}`)
      case 'FAST_JWT_INVALID_CRIT_HEADER':
        return new Refusal('critical header', 'its crit names an extension that is not supported')
      case 'FAST_JWT_INVALID_ALGORITHM': {
        const decoded = decode(app, token)
        return decoded instanceof Refusal ? decoded : wrongAlgorithm(decoded.header.alg, SYMMETRIC)
      }
      default:
        return NO_JWT
    }
  }
}

function decode(app: FastifyInstance, token: string) {
  try {
    return withoutStack(() => app.jwt.decode<{ header: Payload; payload: Payload }>(token)) ?? NO_JWT
  } catch {
    return NO_JWT
  }
}

const NO_JWT = new Refusal('malformed', 'it is not a JWT')

const wrongAlgorithm = (alg: unknown, accepted: string[]) =>
  new Refusal('algorithm', `alg is ${shown(alg)}, accepted: ${accepted.join(', ')}`)

/**
 * Calls a function without recording stacks of its errors. The JWT library throws one for each bad token, and its stack
 * took a quarter of the time of the whole refusal.
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
