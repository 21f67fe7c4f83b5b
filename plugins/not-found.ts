import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import FindMyWay from 'find-my-way'
import { MethodNotAllowed, RouteNotFound, UndecodablePath } from './errors/catalogue.js'

/** A `sub` of 255 characters has up to 3,060 in a URL. Node limits all headers together to 16 KiB. */
export const ROUTER = { ignoreTrailingSlash: true, maxParamLength: 16_384 }

/** No route matches this path, and no client can send it: a URL's path begins with a slash. */
const UNDECODABLE = '*undecodable'

/**
 * Replaces a path that cannot be decoded by one that no route matches. The router would answer it without any hook, so
 * without authentication and CORS headers.
 */
export function rewriteUrl({ url = '/' }: IncomingMessage): string {
  return isDecodable(url) ? url : UNDECODABLE
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
 * Answers requests that no route matches: 400 for a path that cannot be decoded, 405 with `Allow` for another method, else
 * 404. It must be registered after authentication and before all routes.
 */
export default fp(
  async (app) => {
    // A second router finds the path of a request regardless of its method.
    const paths = FindMyWay(ROUTER)
    const methodsOf = new Map<string, Set<string>>()
    app.addHook('onRoute', ({ url, method }) => {
      const methods = methodsOf.get(url) ?? new Set()
      for (const name of [method].flat()) methods.add(name)
      if (!methodsOf.has(url)) paths.on('GET', url, () => {}, methods)
      methodsOf.set(url, methods)
    })
    app.addHook('onRequest', (request, reply, done) => {
      // @fastify/cors adds a route for every OPTIONS. It has already answered the preflights, so others match no route.
      if (!request.is404 && request.method !== 'OPTIONS') return done()
      if (request.url === UNDECODABLE) return done(new UndecodablePath())
      const methods: Set<string> | undefined = paths.find('GET', request.url)?.store
      if (methods === undefined) return done(new RouteNotFound())
      reply.header('Allow', [...methods].join(', '))
      done(new MethodNotAllowed())
    })
  },
  { name: 'not-found' }
)
