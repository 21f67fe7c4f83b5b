import { createServer, type Server, type Socket, connect as tcp } from 'node:net'
import type { Test } from 'tap'

/** What a proxy does with the connections that come: pass them on, close each at once, or take them and say nothing. */
export type Mode = 'pass' | 'close' | 'silent'

export interface TcpProxy {
  /** The given URL with this proxy's port in it. */
  url: string
  mode: Mode
  /** How many connections came. */
  accepted: number
  /** Ends every connection there is. */
  cut(): void
  /** From now on the connections there are carry nothing, in either direction, without being closed. */
  freeze(): void
  thaw(): void
  /** Stops listening, so that new connections are refused. */
  refuse(): Promise<void>
  /** Listens again on the same port. */
  listen(): Promise<void>
}

/** A network between the service and a PostgreSQL server, with the ways in which networks fail. Ends with the test. */
export async function startProxy(t: Test, target: string): Promise<TcpProxy> {
  const url = new URL(target)
  const upstream = { host: url.hostname, port: Number(url.port) }
  const pairs = new Set<[Socket, Socket?]>()
  let server: Server | undefined
  let port = 0

  function accept(client: Socket): void {
    proxy.accepted++
    client.on('error', () => {})
    if (proxy.mode === 'close') {
      client.resume().end()
      return
    }
    if (proxy.mode === 'silent') {
      const pair: [Socket] = [client]
      pairs.add(pair)
      client.resume().on('close', () => pairs.delete(pair))
      return
    }
    const remote = tcp(upstream)
    const pair: [Socket, Socket] = [client, remote]
    pairs.add(pair)
    remote.on('error', () => {})
    remote.on('close', () => client.destroy())
    client.on('close', () => {
      remote.destroy()
      pairs.delete(pair)
    })
    client.pipe(remote)
    remote.pipe(client)
  }

  const proxy: TcpProxy = {
    url: '',
    mode: 'pass',
    accepted: 0,
    cut() {
      for (const [client] of pairs) client.destroy()
    },
    freeze() {
      for (const [client, remote] of pairs) {
        if (remote) client.unpipe(remote).pause()
        if (remote) remote.unpipe(client).pause()
      }
    },
    thaw() {
      for (const [client, remote] of pairs) {
        if (remote) client.pipe(remote)
        if (remote) remote.pipe(client)
      }
    },
    refuse() {
      const closing = server
      server = undefined
      return new Promise((resolve) => {
        if (!closing) return resolve()
        closing.close(() => resolve())
        proxy.cut()
      })
    },
    listen() {
      return new Promise((resolve, reject) => {
        const listening = createServer(accept).once('error', reject)
        listening.listen(port, '127.0.0.1', () => {
          port = (listening.address() as { port: number }).port
          server = listening
          resolve()
        })
      })
    }
  }
  await proxy.listen()
  url.port = String(port)
  proxy.url = url.href
  t.teardown(() => proxy.refuse())
  return proxy
}
