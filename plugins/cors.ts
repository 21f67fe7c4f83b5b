import cors, { type FastifyCorsOptions } from '@fastify/cors'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { CorsOrigins } from '../src/config.js'

/**
 * Sets the CORS headers on every answer, errors included, and answers preflights. Registered before authentication: a
 * preflight carries no token, and a browser shows a 401 as such only when it has the headers.
 */
export default fp<{ origins: CorsOrigins }>(
  async (app, { origins }) => {
    if (origins === false) return
    const options: FastifyCorsOptions = {
      origin: origins,
      // Browsers refuse credentials together with "*".
      credentials: origins !== '*',
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      allowedHeaders: ['Authorization', 'Content-Type', 'Idempotency-Key', 'If-Match', 'If-None-Match'],
      exposedHeaders: ['ETag', 'Idempotency-Replayed', 'Location', 'Retry-After', 'X-Request-Id'],
      maxAge: 600
    }
    const withoutPreflight = { ...options, preflight: false }
    await app.register(cors, {
      delegator: (request: FastifyRequest, done) =>
        done(null, isPreflight(request) ? options : withoutPreflight)
    })
  },
  { name: 'cors' }
)

/** Any other OPTIONS is a request like all others, and needs a token: Fetch standard, "CORS-preflight request". */
function isPreflight({ method, headers }: FastifyRequest): boolean {
  // Empty headers are none: @fastify/cors would answer such a "preflight" itself, with a 400.
  return method === 'OPTIONS' && !!headers.origin && !!headers['access-control-request-method']
}
