import fp from 'fastify-plugin'

/**
 * Headers of every answer. Each costs time on every request, so only those that matter for JSON behind a token are sent.
 * docs/service.md explains why there are no others.
 *
 * - No cache stores task data, neither a proxy's nor a browser's (RFC 9111, section 5.2.2.5). `If-None-Match` and 304
 *   still work for a client that keeps the task and its `ETag`.
 * - A browser that opens an answer treats it as JSON only, and neither runs nor frames it.
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
