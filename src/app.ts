import { isUtf8 } from 'node:buffer'
import { randomUUID } from 'node:crypto'
import { type IncomingMessage, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import Fastify, { type ConnectionError, type FastifyInstance, LogController } from 'fastify'
import FindMyWay from 'find-my-way'
import auth from '../plugins/auth.js'
import cors from '../plugins/cors.js'
import database from '../plugins/database.js'
import errors, { PROBLEM_JSON, problem } from '../plugins/errors.js'
import metrics from '../plugins/metrics.js'
import openapi from '../plugins/openapi.js'
import tasks from '../routes/tasks/index.js'
import type { Config } from './config.js'
import { resolveDevelopmentSecret } from './development-secret.js'
import { BadRequest, MethodNotAllowed, RouteNotFound, UnsupportedMediaType } from './errors.js'
import { loggerOptions } from './logger.js'
import { ajv } from './validation.js'

/** A request body's largest size, in bytes. */
const BODY_LIMIT = 65_536
/** How long a client may take to send a request, in milliseconds. */
const REQUEST_TIMEOUT_MS = 10_000
/** How often Node looks for requests that took longer, in milliseconds. */
const TIMEOUT_CHECK_MS = 1_000

/** A `sub` of 255 characters takes up to 3,060 in a URL, and Node refuses headers of more than 16 KiB as a whole. */
const ROUTER = { ignoreTrailingSlash: true, maxParamLength: 16_384 }

/**
 * On every answer, whoever gives it. Few, because each costs every request, and none but what means something for JSON
 * that needs a token: docs/operating.md says why there are no others.
 *
 * - Task data is stored nowhere on its way, and in no browser's cache (RFC 9111, section 5.2.2.5). `If-None-Match` and
 *   304 work all the same for a client that keeps the task and its `ETag` itself.
 * - A browser that is pointed at an answer takes it for nothing but JSON, and neither runs nor frames it.
 */
const SECURITY_HEADERS = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff'
}

export interface Overrides {
  /** Where log lines go instead of the standard output. */
  logStream?: { write(line: string): void }
}

/** The API listener as production runs it, ready to listen; it reads nothing of the process around it. */
export async function buildApp(config: Config, { logStream }: Overrides = {}): Promise<FastifyInstance> {
  const app = Fastify({
    logger: loggerOptions(config.logLevel, logStream),
    // Fastify's two lines at info for each request; the onResponse hook below has one at debug, without the URL.
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: () => randomUUID(),
    requestIdHeader: false,
    bodyLimit: BODY_LIMIT,
    requestTimeout: REQUEST_TIMEOUT_MS,
    // Node takes the larger of its two limits for the whole request, and by default looks every 30 seconds.
    // Its own refusal of a request without a Host has neither a body nor the headers below.
    http: {
      headersTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
      requireHostHeader: false
    },
    // What waits while starting has a limit of its own; making a new embedded database may well take longer than ten
    // seconds on a slow machine.
    pluginTimeout: 0,
    // While it closes, the app still answers what arrives on open connections, each with "Connection: close".
    return503OnClosing: false,
    ajv,
    routerOptions: ROUTER,
    rewriteUrl: ({ url = '/' }) => (isDecodable(url) ? url : UNDECODABLE),
    clientErrorHandler: refuseConnection
  })

  // Node would answer an unknown Expect with an empty 417, before anything here is asked.
  app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response))

  app.addHook('onRequest', (request, reply, done) => {
    reply.headers(SECURITY_HEADERS).header('X-Request-Id', request.id)
    if (!lacksHost(request.raw)) return done()
    reply.header('Connection', 'close')
    done(new BadRequest('A request of HTTP/1.1 needs a Host.'))
  })
  app.addHook('onResponse', (request, reply, done) => {
    request.log.debug({ req: request, res: reply, milliseconds: reply.elapsedTime }, 'request answered')
    done()
  })

  await app.register(metrics)
  await app.register(errors)
  await app.register(cors, { origins: config.corsOrigins })
  await app.register(auth, { auth: resolveDevelopmentSecret(config.auth) })
  await app.register(database, { database: config.database })
  await app.register(openapi)

  acceptJson(app)

  // At the root and before routing matters: what is registered below, and what does not exist, needs a token alike.
  app.addHook('onRequest', app.authenticate)
  refuseUnmatched(app)

  await app.register(tasks, { prefix: '/api/:userId/tasks' })

  await app.ready()
  return app
}

/** RFC 9112, section 3.2; before HTTP/1.1 there may be none. */
const lacksHost = ({ headers, httpVersion }: IncomingMessage) =>
  headers.host === undefined && httpVersion === '1.1'

/** No route has a path like this one, and no client can send it: it is not a URL's path. */
const UNDECODABLE = '*undecodable'

/**
 * The router answers a path that it cannot decode outside of all hooks, without authentication and CORS headers. So
 * such a path becomes one that exists nowhere.
 */
function isDecodable(url: string): boolean {
  if (!url.includes('%')) return true
  const [path = ''] = url.split('?', 1)
  try {
    decodeURIComponent(path)
    return true
  } catch {
    return false
  }
}

/** JSON is the only body. An empty one is none, whatever its Content-Type: many clients send the header always. */
function acceptJson(app: FastifyInstance): void {
  const parseJson = app.getDefaultJsonParser('remove', 'remove')
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
    if (body.length === 0) return done(null, undefined)
    // Node would silently replace what it cannot decode, and the client would not get back what it sent.
    if (!isUtf8(body as Buffer))
      return done(new BadRequest('The request body is not valid UTF-8.'), undefined)
    void parseJson(request, body.toString(), done)
  })
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => {
    done(body.length === 0 ? null : new UnsupportedMediaType(), undefined)
  })
}

/** Answers what no route matches, after authentication: 400, 405 with `Allow`, or 404. */
function refuseUnmatched(app: FastifyInstance): void {
  // The paths that exist, whatever the method, found as the app's own router finds them.
  const paths = FindMyWay(ROUTER)
  const methodsOf = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ url, method }) => {
    const methods = methodsOf.get(url) ?? new Set()
    for (const name of [method].flat()) methods.add(name)
    if (!methodsOf.has(url)) paths.on('GET', url, () => {}, methods)
    methodsOf.set(url, methods)
  })
  app.addHook('onRequest', (request, reply, done) => {
    // @fastify/cors has a route for every OPTIONS, but preflights were answered before: what is left is no route.
    if (!request.is404 && request.method !== 'OPTIONS') return done()
    if (request.url === UNDECODABLE) return done(new BadRequest('The path of the URL cannot be decoded.'))
    const methods: Set<string> | undefined = paths.find('GET', request.url)?.store
    if (methods === undefined) return done(new RouteNotFound())
    reply.header('Allow', [...methods].join(', '))
    done(new MethodNotAllowed())
  })
}

/** What a broken request gets before there is a request to answer; the connection ends with it. */
function refuseConnection(error: ConnectionError, socket: Socket): void {
  if (!socket.writable) {
    socket.destroy()
    return
  }
  const { status, phrase, body } = brokenRequest(error.code)
  const headers = [
    `HTTP/1.1 ${status} ${phrase}`,
    `Content-Type: ${PROBLEM_JSON}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    ...Object.entries(SECURITY_HEADERS).map(([name, value]) => `${name}: ${value}`),
    'Connection: close'
  ]
  socket.end(`${headers.join('\r\n')}\r\n\r\n${body}`)
}

function brokenRequest(code: string) {
  const [status, detail] =
    code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'The request headers are larger than 16 KiB.']
      : code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'The request did not arrive in time.']
        : [400, 'This is not a valid HTTP request.']
  const phrase = STATUS_CODES[status]
  return {
    status,
    phrase,
    body: JSON.stringify({ ...problem('bad_request', detail), title: phrase, status })
  }
}
