import cors, { type FastifyCorsOptions } from '@fastify/cors'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'

/** The origins whose pages may call the API: all, some, or none. */
export type CorsOrigins = '*' | (string | RegExp)[] | false

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Allows pages on this port of the request's own host. The documentation page is such a page: it is on the same
     * host, but the other port makes it another origin.
     */
    allowPagesOnPort(port: number): void
  }
}

/** The request headers that the API reads. */
const UNDERSTOOD = [
  'Authorization',
  'Content-Type',
  'Idempotency-Key',
  'If-Match',
  'If-None-Match',
  'X-Request-Id'
]

/** The response headers that a page may read, in addition to those that the Fetch standard always allows. */
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
 * Sets the CORS headers on every answer, errors included, and answers preflights. It is registered before authentication,
 * because a preflight has no token, and a page can read a 401 only if that has the headers.
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
        const preflight = isPreflight(request)
        const headers = preflight && { allowedHeaders: allowedHeaders(request) }
        done(null, { ...options, ...headers, origin, preflight })
      }
    })
  },
  { name: 'cors' }
)

function originOf(hostname: string, port: number): string | undefined {
  const url = `http://${hostname}:${port}`
  return URL.canParse(url) ? new URL(url).origin : undefined
}

/** Any other OPTIONS request needs a token: Fetch standard, "CORS-preflight request". */
function isPreflight({ method, headers }: FastifyRequest): boolean {
  // An empty header counts as missing: @fastify/cors would answer this request with a 400 of its own.
  return method === 'OPTIONS' && !!headers.origin && !!headers['access-control-request-method']
}

/**
 * Allows our headers and any other that the page asks for. Libraries in the page add headers, for example `baggage`,
 * `traceparent` and `X-Requested-With`. A browser blocks a request if one of its headers is not allowed.
 *
 * This is safe: the origin is checked, and the API ignores the other headers. A browser never adds a bearer token by
 * itself.
 */
function allowedHeaders({ headers }: FastifyRequest): string[] {
  const list = headers['access-control-request-headers'] ?? ''
  if (list.length > MAX_ASKED) return UNDERSTOOD
  const asked = new Set(list.split(',').map((name) => name.trim()))
  return [...UNDERSTOOD, ...[...asked].filter((name) => FIELD_NAME.test(name) && !isUnderstood(name))]
}

/**
 * Longest list of headers that is repeated, in characters. After an answer with more than 4 KiB of headers, nginx sends no
 * request to this replica for a while, by its defaults.
 */
const MAX_ASKED = 1_024

/** RFC 9110, section 5.1. */
const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/i

const isUnderstood = (name: string) =>
  UNDERSTOOD.some((understood) => understood.toLowerCase() === name.toLowerCase())
