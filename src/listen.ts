import { lookup } from 'node:dns/promises'
import { type AddressInfo, createServer, type Server } from 'node:net'
import type { FastifyInstance, FastifyListenOptions } from 'fastify'
import type { Listener } from './config.js'

/**
 * How many connections may wait to be accepted. With Node's 511, clients that all come back at once, as after a deployment,
 * get a reset. The kernel allows no more than its `net.core.somaxconn`, which is 4,096 on Linux.
 */
const BACKLOG = 4_096

declare module 'fastify' {
  interface FastifyInstance {
    /** Listens on every address that the host has on this machine; rejects when one is in use, or none is there. */
    listenOnAll(listener: Listener): Promise<void>
  }
}

/**
 * Decorates `app.listenOnAll`.
 *
 * Fastify would make a further server for each further address of `localhost`, which has none of the listeners, hooks
 * and limits of `app.server`. Here `app.server` serves the connections of every address.
 */
export function decorateListen(app: FastifyInstance): void {
  const others: Server[] = []

  app.decorate('listenOnAll', async ({ host, port }) => {
    let missing: unknown
    for (const address of await addressesOf(host)) {
      try {
        if (app.server.listening) others.push(await forward(app, address))
        else await listenUnlogged(app, { host: address, port, backlog: BACKLOG })
      } catch (error) {
        if (!isMissing(error)) throw error
        missing = error
      }
    }
    if (!app.server.listening) throw missing
  })

  app.addHook('preClose', async () => {
    // All addresses stop at once. Fastify waits for the connections of `app.server` itself, after this hook.
    app.server.close()
    await Promise.all(others.map((other) => new Promise((resolve) => other.close(resolve))))
  })
}

/** Without duplicates, which a hosts file can bring. */
async function addressesOf(host: string): Promise<Set<string>> {
  const found = await lookup(host, { all: true })
  return new Set(found.map(({ address }) => address))
}

/** Fastify logs a line for each address. The process says where both listeners are, once. */
async function listenUnlogged(app: FastifyInstance, options: FastifyListenOptions): Promise<void> {
  const { level } = app.log
  app.log.level = 'silent'
  try {
    await app.listen(options)
  } finally {
    app.log.level = level
  }
}

/** Accepts connections on another address, and hands them to the HTTP server. */
function forward(app: FastifyInstance, host: string): Promise<Server> {
  const { port } = app.server.address() as AddressInfo
  // The options of Node's own HTTP server.
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    app.server.emit('connection', socket)
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port, backlog: BACKLOG }, () => resolve(server.off('error', reject)))
  })
}

/** A hosts file may name ::1 on a machine without IPv6. */
function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'EADDRNOTAVAIL' || code === 'EAFNOSUPPORT'
}
