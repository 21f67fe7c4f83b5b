import fp from 'fastify-plugin'

/**
 * On every answer, whoever gives it. Few, because each costs every request, and none but what means something for JSON
 * that needs a token: docs/service.md says why there are no others.
 *
 * - Task data is stored nowhere on its way, and in no browser's cache (RFC 9111, section 5.2.2.5). `If-None-Match` and
 *   304 work all the same for a client that keeps the task and its `ETag` itself.
 * - A browser that is pointed at an answer takes it for nothing but JSON, and neither runs nor frames it.
 */
export const SECURITY_HEADERS = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff'
}

export default fp(
  async (app) => {
    app.addHook('onRequest', (request, reply, done) => {
      reply.headers(SECURITY_HEADERS).header('X-Request-Id', request.id)
      done()
    })
  },
  { name: 'security-headers' }
)
