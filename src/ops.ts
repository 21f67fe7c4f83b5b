import type { AddressInfo } from 'node:net'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import requiredHost from '../plugins/required-host.js'
import { httpServer } from './http-server.js'

/** How long `/ready` waits for the database. */
const READY_MS = 1_000

/** On every answer but the documentation page and what belongs to it, which say themselves what they may load. */
const SECURITY_HEADERS = {
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff'
}

declare module 'fastify' {
  interface FastifyInstance {
    /** From now on `/ready` answers 503, so that no new requests are sent here. */
    drain(): void
  }
}

/**
 * The operations listener: probes, metrics and documentation of the given API. It never shows task data, and needs no
 * token, so that it can be kept where only operators and probes reach it.
 *
 * @param apiUrl where the API answers, for the documentation's "Try it out"
 */
export async function buildOps(api: FastifyInstance, apiUrl: string): Promise<FastifyInstance> {
  const ops = httpServer({
    keepAliveTimeout: api.server.keepAliveTimeout,
    routerOptions: { ignoreTrailingSlash: true },
    // A path that cannot be decoded is answered outside of all hooks.
    frameworkErrors: (error, _request, reply) => reply.headers(SECURITY_HEADERS).send(error as never)
  })
  let draining = false
  ops.decorate('drain', () => {
    draining = true
  })

  ops.addHook('onRequest', (_request, reply, done) => {
    reply.headers(SECURITY_HEADERS)
    done()
  })
  await ops.register(requiredHost)

  ops.get('/live', async () => ({ status: 'live' }))

  ops.get('/ready', async (_request, reply) => {
    if (draining) return reply.code(503).send({ status: 'draining' })
    try {
      await api.db.ping(READY_MS)
      return { status: 'ready' }
    } catch {
      return reply.code(503).send({ status: 'database unavailable' })
    }
  })

  ops.get('/metrics', async (_request, reply) => {
    reply.type(api.metrics.contentType)
    return api.metrics.metrics()
  })

  const document = { ...api.swagger(), servers: [{ url: apiUrl }] }
  ops.get('/openapi.json', async () => document)
  await ops.register(swagger, { mode: 'static', specification: { document: document as never } })
  await ops.register(swaggerUi, {
    routePrefix: '/docs',
    uiConfig: { tryItOutEnabled: true, persistAuthorization: true },
    staticCSP: true,
    transformStaticCSP: (csp) =>
      [
        csp
          .replace("frame-ancestors 'self'", "frame-ancestors 'none'")
          // This listener speaks plain HTTP: on any host but localhost a browser would look for the page's own scripts
          // at https, where nothing answers.
          .replace(/ upgrade-insecure-requests;$/, ''),
        // The page may call the API, which is another origin.
        `connect-src 'self' ${apiUrl}`
      ].join(' ')
  })

  await ops.ready()
  return ops
}

/** The URL of a listening server, as a client on this machine reaches it. */
export function urlOf(app: FastifyInstance): string {
  const { address, port, family } = app.server.address() as AddressInfo
  const anywhere = address === '0.0.0.0' || address === '::'
  return `http://${anywhere ? 'localhost' : family === 'IPv6' ? `[${address}]` : address}:${port}`
}
