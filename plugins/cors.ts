import cors, { type FastifyCorsOptions } from '@fastify/cors'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'

/** The origins whose pages may call the API: every one, some, or none. */
export type CorsOrigins = '*' | (string | RegExp)[] | false

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * From now on pages on this port may call the API, when their host is the one by which the request came: the
     * documentation page, which is on this machine but of another origin.
     */
    allowPagesOnPort(port: number): void
  }
}

/** The request headers that mean something here. */
const UNDERSTOOD = [
  'Authorization',
  'Content-Type',
  'Idempotency-Key',
  'If-Match',
  'If-None-Match',
  'X-Request-Id'
]

/** The headers of answers that a page may read, besides those that every page may. */
const EXPOSED = [
  'Allow',
  'ETag',
  'Idempotency-Replayed',
  'Location',
  'Retry-After',
  'WWW-Authenticate',
  'X-Request-Id'
]

/**
 * Sets the CORS headers on every answer, errors included, and answers preflights. Registered before authentication: a
 * preflight carries no token, and a browser shows a 401 as such only when it has the headers.
 */
export default fp<{ origins: CorsOrigins }>(
  async (app, { origins }) => {
    let pagePort: number | undefined
    app.decorate('allowPagesOnPort', (port) => {
      pagePort = port
    })
    const isOwnPage = ({ headers, hostname }: FastifyRequest) =>
      pagePort !== undefined && headers.origin === originOf(hostname, pagePort)

    if (origins === false) return
    const options: FastifyCorsOptions = {
      // Browsers refuse credentials together with "*".
      credentials: origins !== '*',
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      exposedHeaders: EXPOSED,
      maxAge: 600
    }
    await app.register(cors, {
      delegator: (request: FastifyRequest, done) => {
        const origin = isOwnPage(request) || origins
        done(
          null,
          isPreflight(request)
            ? { ...options, origin, allowedHeaders: allowedHeaders(request) }
            : { ...options, origin, preflight: false }
        )
      }
    })
  },
  { name: 'cors' }
)

function originOf(hostname: string, port: number): string | undefined {
  const url = `http://${hostname}:${port}`
  return URL.canParse(url) ? new URL(url).origin : undefined
}

/** Any other OPTIONS is a request like all others, and needs a token: Fetch standard, "CORS-preflight request". */
function isPreflight({ method, headers }: FastifyRequest): boolean {
  // Empty headers are none: @fastify/cors would answer such a "preflight" itself, with a 400.
  return method === 'OPTIONS' && !!headers.origin && !!headers['access-control-request-method']
}

/**
 * Ours, and whatever else the page asks for. Its tooling adds headers (`baggage`, `traceparent`, `X-Requested-With`), and
 * one that is not allowed blocks every request of the page. They open nothing: the origin is checked, no other header is
 * read here, and the credential is a bearer token, which a browser never adds by itself.
 */
function allowedHeaders({ headers }: FastifyRequest): string[] {
  const asked = headers['access-control-request-headers']?.split(',').map((name) => name.trim()) ?? []
  return [...UNDERSTOOD, ...asked.filter((name) => FIELD_NAME.test(name) && !isUnderstood(name))]
}

/** RFC 9110, section 5.1. */
const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/i

const isUnderstood = (name: string) =>
  UNDERSTOOD.some((understood) => understood.toLowerCase() === name.toLowerCase())
