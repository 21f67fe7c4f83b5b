import type { AddressInfo } from 'node:net'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import docs from '../plugins/docs/index.js'
import requiredHost from '../plugins/required-host.js'
import { httpServer } from './http-server.js'

/** How long `/ready` waits for the database. */
const READY_MS = 1_000

/** The documentation page, and what belongs to it, have a policy of their own, which says what they may load. */
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
 * @param api listening, for the documentation says where
 */
export async function buildOps(api: FastifyInstance): Promise<FastifyInstance> {
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

const isAnywhere = (address: string) => address === '0.0.0.0' || address === '::'

/** The URL of a listening server, as a client on this machine reaches it. */
export function urlOf(app: FastifyInstance): string {
  const { address, port, family } = addressOf(app)
  return `http://${isAnywhere(address) ? 'localhost' : family === 'IPv6' ? `[${address}]` : address}:${port}`
}

/**
 * The API's URL for a client of the operations listener, which may be on another host. The name by which it came here leads
 * to the API too, provided that the API listens on the same address.
 */
function urlFor({ hostname, socket }: FastifyRequest, api: FastifyInstance): string {
  const { address, port } = addressOf(api)
  const url = `http://${hostname}:${port}`
  return (isAnywhere(address) || address === socket.localAddress) && URL.canParse(url) ? url : urlOf(api)
}
