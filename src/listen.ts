import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import type { FastifyInstance, FastifyListenOptions } from 'fastify'

/**
 * Number of connections that may wait to be accepted. Node's default of 511 is too few when all clients reconnect at once
 * after a deployment: some get a reset. Linux allows at most `net.core.somaxconn`, by default 4,096.
 */
const BACKLOG = 4_096

declare module 'fastify' {
  interface FastifyInstance {
    /** Listens on every address of the host. Rejects if one is in use, or this machine has none of them. */
    listenOnAll(listener: { host: string; port: number }): Promise<void>
  }
}

/**
 * Decorates `app.listenOnAll`.
 *
 * For each further address of `localhost` Fastify would create another server, without the listeners, hooks and limits
 * of `app.server`. Here `app.server` serves the connections of every address.
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
    // All addresses stop at the same time. After this hook Fastify waits for the connections of `app.server`.
    app.server.close()
    await Promise.all(others.map((other) => new Promise((resolve) => other.close(resolve))))
  })
}

/** A hosts file can list an address twice. */
async function addressesOf(host: string): Promise<Set<string>> {
  const found = await lookup(host, { all: true })
  return new Set(found.map(({ address }) => address))
}

/** Fastify would log a line for each address. The process logs both listeners in one line. */
async function listenUnlogged(app: FastifyInstance, options: FastifyListenOptions): Promise<void> {
  const { level } = app.log
  app.log.level = 'silent'
  try {
    await app.listen(options)
  } finally {
    app.log.level = level
  }
}

/** Accepts connections on another address, and passes them to the HTTP server. */
async function forward(app: FastifyInstance, host: string): Promise<Server> {
  const { port } = app.server.address() as AddressInfo
  // Node's HTTP server uses these options.
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    app.server.emit('connection', socket)
  })
  server.listen({ host, port, backlog: BACKLOG })
  // It rejects if the server cannot listen.
  await once(server, 'listening')
  return server
}

/** A hosts file may name ::1 on a machine without IPv6. */
function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'EADDRNOTAVAIL' || code === 'EAFNOSUPPORT'
}
