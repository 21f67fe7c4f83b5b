import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import fastifyStatic from '@fastify/static'
import type { FastifyInstance } from 'fastify'
import guides, { hasGuides } from './guides.js'
import { PAGE_CSS, PAGE_JS, pageHtml } from './page.js'

/** Swagger UI's own files. Its package `swagger-ui-dist` sends telemetry when it is installed (`@scarf/scarf`). */
const SWAGGER_UI = join(
  dirname(createRequire(import.meta.url).resolve('@fastify/swagger-ui/package.json')),
  'static'
)

/** The documentation page, which reads `../openapi.json` and calls the API on the given port from the browser. */
export default async function docs(app: FastifyInstance, { apiPort }: { apiPort: number }): Promise<void> {
  const policy = [
    "default-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "img-src 'self' data:",
    "object-src 'none'",
    // The API is another origin, on the host by which the page was reached. A policy cannot name an IPv6 address.
    `connect-src 'self' http://*:${apiPort}`
  ].join('; ')
  app.addHook('onRequest', (_request, reply, done) => {
    reply.header('Content-Security-Policy', policy)
    done()
  })

  app.get('/', async ({ url }, reply) => {
    const base = /^[^?]*\/(\?|$)/.test(url) ? '' : 'docs/'
    return reply.type('text/html; charset=utf-8').send(pageHtml(base, hasGuides))
  })
  app.get('/page.css', async (_request, reply) => reply.type('text/css; charset=utf-8').send(PAGE_CSS))
  app.get('/page.js', async (_request, reply) => reply.type('text/javascript; charset=utf-8').send(PAGE_JS))

  await app.register(fastifyStatic, { root: SWAGGER_UI, serve: false })
  for (const file of ['swagger-ui.css', 'swagger-ui-bundle.js']) {
    app.get(`/${file}`, async (_request, reply) => reply.sendFile(file))
  }
  await app.register(guides, { prefix: '/guides' })
}
