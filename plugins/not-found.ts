import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import FindMyWay from 'find-my-way'
import { InvalidHttp, MethodNotAllowed, RouteNotFound, UndecodablePath } from './errors/catalogue.js'

/** A `sub` of 255 characters has up to 3,060 characters in a URL. Node limits the URL and all headers to 16 KiB. */
export const ROUTER = { ignoreTrailingSlash: true, maxParamLength: 16_384 }

/** Paths that no route matches, and that no client can send: a space ends the path of a request. */
const UNDECODABLE = '/ undecodable'
const NO_PATH = '/ no path'

/** An absolute URL without its path: RFC 9112, section 3.2.2. Proxies may send these. */
const ORIGIN = /^https?:\/\/[^/?#]+(?=[/?]|$)/i

/**
 * Returns the path of a request. If it has none, or one that cannot be decoded, returns one that no route matches. The router
 * would answer such a request itself. It would run no hook, so there would be no authentication and no CORS headers.
 */
export function rewriteUrl({ url = '/' }: IncomingMessage): string {
  const path = url.startsWith('/') ? url : url.replace(ORIGIN, '')
  if (path.startsWith('/') || path === '*') return isDecodable(path) ? path : UNDECODABLE
  return path === '' || path.startsWith('?') ? `/${path}` : NO_PATH
}

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

/**
 * Answers requests that no route matches: 400 without a path that can be decoded, 405 with `Allow` for another method, else
 * 404. It must be registered after authentication and before all routes.
 */
export default fp(
  async (app) => {
    // A second router finds a request's path, whatever its method is.
    const paths = FindMyWay(ROUTER)
    const methodsOf = new Map<string, Set<string>>()
    app.addHook('onRoute', ({ url, method }) => {
      const methods = methodsOf.get(url) ?? new Set()
      for (const name of [method].flat()) methods.add(name)
      if (!methodsOf.has(url)) paths.on('GET', url, () => {}, methods)
      methodsOf.set(url, methods)
    })
    app.addHook('onRequest', (request, reply, done) => {
      // No route of ours has OPTIONS. But @fastify/cors adds one for every path, so is404 is false. It has already answered
      // the preflights.
      if (!request.is404 && request.method !== 'OPTIONS') return done()
      if (request.url === UNDECODABLE) return done(new UndecodablePath())
      if (request.url === NO_PATH) return done(new InvalidHttp())
      const methods: Set<string> | undefined = paths.find('GET', request.url)?.store
      if (methods === undefined) return done(new RouteNotFound())
      reply.header('Allow', [...methods].join(', '))
      done(new MethodNotAllowed())
    })
  },
  { name: 'not-found' }
)
