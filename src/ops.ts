import type { AddressInfo } from 'node:net'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import docs from '../plugins/docs/index.js'
import requiredHost from '../plugins/required-host.js'
import { httpServer } from './http-server.js'

/** Timeout of the database's answer to `/ready`, in milliseconds. */
export const READY_MS = 1_000

/** The documentation page and its files replace this policy with one of their own. */
const SECURITY_HEADERS = {
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff'
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Makes `/ready` answer 503, so that a load balancer sends no new requests. */
    drain(): void
  }
}

/**
 * Builds the operations listener: probes, metrics and documentation of the API. It needs no token and shows no task
 * data. It belongs on an address that only operators and probes reach.
 *
 * @param api must be listening: the documentation shows its address
 */
export async function buildOps(api: FastifyInstance): Promise<FastifyInstance> {
  const ops = httpServer({
    keepAliveTimeout: api.server.keepAliveTimeout,
    routerOptions: { ignoreTrailingSlash: true },
    // For a path that cannot be decoded Fastify runs no hooks.
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

  ops.get('/openapi.json', async (request) => ({
    ...api.swagger(),
    servers: [{ url: urlFor(request, api) }]
  }))
  await ops.register(docs, { prefix: '/docs', apiPort: portOf(api) })

  await ops.ready()
  return ops
}

const addressOf = (app: FastifyInstance) => app.server.address() as AddressInfo

export const portOf = (app: FastifyInstance) => addressOf(app).port

const isWildcard = (address: string) => address === '0.0.0.0' || address === '::'

/** The URL of a listening server, as a client on this machine reaches it. */
export function urlOf(app: FastifyInstance): string {
  const { address, port, family } = addressOf(app)
  return `http://${isWildcard(address) ? 'localhost' : family === 'IPv6' ? `[${address}]` : address}:${port}`
}

/**
 * The API's URL for a client of the operations listener, which may be on another host. If the API listens on the
 * same address as this listener, the client reaches it under the same host name.
 */
function urlFor({ hostname, socket }: FastifyRequest, api: FastifyInstance): string {
  const { address, port } = addressOf(api)
  const url = `http://${hostname}:${port}`
  return (isWildcard(address) || address === socket.localAddress) && URL.canParse(url) ? url : urlOf(api)
}
