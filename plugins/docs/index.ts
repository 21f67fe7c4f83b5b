import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import fastifyStatic from '@fastify/static'
import type { FastifyInstance } from 'fastify'
import guides, { hasGuides } from './guides.js'
import { PAGE_CSS, PAGE_JS, pageHtml } from './page.js'

/** Swagger UI's files, from Fastify's package: `swagger-ui-dist` sends telemetry during installation (`@scarf/scarf`). */
const SWAGGER_UI = join(
  dirname(createRequire(import.meta.url).resolve('@fastify/swagger-ui/package.json')),
  'static'
)

/** Serves the documentation page. It reads `../openapi.json`, and the browser calls the API on `apiPort`. */
export default async function docs(app: FastifyInstance, { apiPort }: { apiPort: number }): Promise<void> {
  const policy = [
    "default-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "img-src 'self' data:",
    "object-src 'none'",
    // The API has the page's host and another port. A policy cannot contain an IPv6 address, so the host is a wildcard.
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
