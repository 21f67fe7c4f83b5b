import type { FastifyRequest, onRequestHookHandler, preHandlerHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { Forbidden, InvalidToken, MissingToken } from '../errors/catalogue.js'
import { countsOf } from '../metrics.js'
import { type Claims, checkClaims } from './claims.js'
import type { AuthOptions } from './options.js'
import { REASONS, Refusal, refusalLog } from './refusals.js'
import { signatureCheck } from './signatures.js'
import { verifiedTokens } from './verified-tokens.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** An onRequest hook: 401 unless the request has a valid token. Sets `request.user`. */
    authenticate: onRequestHookHandler
    /** A preHandler hook: 403 unless the path's `userId` is the token's `sub`. */
    requireOwner: preHandlerHookHandler
  }
}

declare module '@fastify/jwt' {
  interface FastifyJWT {
    payload: Record<string, unknown>
    user: { sub: string }
  }
}

/** Decorates `app.authenticate` and `app.requireOwner`. */
export default fp<{ auth: AuthOptions }>(
  async (app, { auth }) => {
    const checkSignature = await signatureCheck(app, auth)
    const verified = verifiedTokens()
    const logRefusal = refusalLog()
    const accepted = countsOf(app.metrics, {
      name: 'auth_tokens_accepted_total',
      help: 'Requests with a valid token, by source: remembered since its last verification, or verified now.',
      label: 'source',
      values: ['cache', 'verified']
    })
    const refused = countsOf(app.metrics, {
      name: 'auth_refusals_total',
      help: 'Requests that were answered 401, by the reason.',
      label: 'reason',
      values: REASONS
    })

    async function verify(authorization: string): Promise<Claims | Refusal> {
      const token = bearerToken(authorization)
      if (token === undefined) return new Refusal('no bearer token', 'Authorization is not "Bearer <token>"')
      const payload = await checkSignature(token)
      return payload instanceof Refusal ? payload : checkClaims(payload, auth)
    }

    app.decorate('authenticate', (request, _reply, done) => {
      const { authorization } = request.headers
      if (authorization === undefined) {
        refused['no token']++
        request.log.debug('no token: there is no Authorization header')
        return done(new MissingToken())
      }
      const claims = verified.get(authorization)
      if (claims !== undefined) {
        accepted.cache++
        request.user = claims
        return done()
      }
      verify(authorization).then((result) => {
        if (result instanceof Refusal) {
          refused[result.reason]++
          logRefusal(request.log, result)
          return done(result.reason === 'no bearer token' ? new MissingToken() : new InvalidToken())
        }
        accepted.verified++
        verified.add(authorization, result)
        request.user = result
        done()
      }, done)
    })

    app.decorate('requireOwner', (request, _reply, done) => {
      done(isOwner(request) ? undefined : new Forbidden())
    })
  },
  { name: 'auth', dependencies: ['metrics'] }
)

/** True when the path has the token's `sub`: exact equality, after the router has percent-decoded the path once. */
export function isOwner({ params, user }: FastifyRequest): boolean {
  return (params as { userId: string }).userId === user.sub
}

/** The scheme is case-insensitive, and one or more spaces follow it: RFC 9110, section 11.4, and RFC 6750, section 2.1. */
function bearerToken(header: string): string | undefined {
  return /^bearer +(\S+) *$/i.exec(header)?.[1]
}
