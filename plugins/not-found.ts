import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import FindMyWay from 'find-my-way'
import { MethodNotAllowed, RouteNotFound, UndecodablePath } from './errors/catalogue.js'

/** A `sub` of 255 characters takes up to 3,060 in a URL, and Node refuses headers of more than 16 KiB as a whole. */
export const ROUTER = { ignoreTrailingSlash: true, maxParamLength: 16_384 }

/** No route has a path like this one, and no client can send it: it is not a URL's path. */
const UNDECODABLE = '*undecodable'

/**
 * The router answers a path that it cannot decode outside of all hooks, without authentication and CORS headers. So
 * such a path becomes one that exists nowhere.
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

/** Answers what no route matches: 400, 405 with `Allow`, or 404. Registered after authentication and before all routes. */
export default fp(
  async (app) => {
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
      if (request.url === UNDECODABLE) return done(new UndecodablePath())
      const methods: Set<string> | undefined = paths.find('GET', request.url)?.store
      if (methods === undefined) return done(new RouteNotFound())
      reply.header('Allow', [...methods].join(', '))
      done(new MethodNotAllowed())
    })
  },
  { name: 'not-found' }
)
