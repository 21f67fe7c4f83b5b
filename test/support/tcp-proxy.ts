import { createServer, type Server, type Socket, connect as tcp } from 'node:net'
import { Transform } from 'node:stream'
import type { Test } from './tap.js'

/**
 * Behaviour for new connections: forward them, close them at once, accept them and never answer, or forward nothing until
 * `thaw()`. With TLS, the proxy can accept TLS like PostgreSQL, and then hang or close during the handshake.
 */
export type Mode = 'pass' | 'close' | 'silent' | 'frozen' | 'silent handshake' | 'cut handshake'

export interface TcpProxy {
  /** This URL with the proxy's port. */
  url: string
  /** The target's host and port. */
  upstream: string
  mode: Mode
  /** Delay of forwarded data in milliseconds, in both directions, also on open connections. */
  delay: number
  /** The number of connections so far. */
  accepted: number
  /** Sends these bytes on every open connection, as if the server had sent them. */
  answer(bytes: Buffer): void
  /** Closes every open connection. */
  cut(): void
  /** Closes every open connection with a TCP reset. */
  reset(): void
  /** Stops forwarding on open connections, in both directions, without closing them. */
  freeze(): void
  thaw(): void
  /** Stops listening: new connections are refused. */
  refuse(): Promise<void>
  /** Listens again on the same port. */
  listen(): Promise<void>
}

interface Connected {
  client: Socket
  remote: Socket
  /** The two directions of a connection. */
  lines: readonly [DelayLine, DelayLine]
}

type Pair = Connected | { client: Socket; remote?: never; lines?: never }

function carry({ client, remote, lines }: Connected): void {
  client.pipe(lines[0])
  remote.pipe(lines[1])
}

function agreeToTls(client: Socket, mode: 'silent handshake' | 'cut handshake'): void {
  client.once('data', () => {
    client.write('S')
    if (mode === 'cut handshake') client.once('data', () => client.destroy())
  })
}

/** Forwards each chunk after the current delay, in order. */
class DelayLine extends Transform {
  #waiting: Buffer[] = []
  #due = 0

  constructor(readonly milliseconds: () => number) {
    super()
  }

  override _transform(chunk: Buffer, _encoding: string, done: () => void): void {
    const delay = this.milliseconds()
    if (delay === 0 && this.#waiting.length === 0) {
      this.push(chunk)
      done()
      return
    }
    // If the delay has decreased, a new chunk still waits for those before it.
    this.#due = Math.max(this.#due, performance.now() + delay)
    this.#waiting.push(chunk)
    // Timers may fire out of order by a millisecond, so each forwards the first chunk in the queue.
    setTimeout(() => {
      const first = this.#waiting.shift()
      if (!this.destroyed) this.push(first)
      if (this.#waiting.length === 0) this.emit('passed')
    }, this.#due - performance.now())
    done()
  }

  override _flush(done: () => void): void {
    if (this.#waiting.length === 0) done()
    else this.once('passed', done)
  }
}

/** A network between the service and a PostgreSQL server that can fail in several ways. It ends with the test. */
export async function startProxy(t: Pick<Test, 'teardown'>, target: string): Promise<TcpProxy> {
  const url = new URL(target)
  const upstream = { host: url.hostname, port: Number(url.port) }
  const pairs = new Set<Pair>()
  let server: Server | undefined
  let port = 0

  function accept(client: Socket): void {
    proxy.accepted++
    client.on('error', () => {})
    if (proxy.mode === 'close') {
      client.resume().end()
      return
    }
    if (proxy.mode !== 'pass' && proxy.mode !== 'frozen') {
      const pair = { client }
      pairs.add(pair)
      client.resume().on('close', () => pairs.delete(pair))
      if (proxy.mode !== 'silent') agreeToTls(client, proxy.mode)
      return
    }
    const remote = tcp({ ...upstream, noDelay: true })
    const lines = [new DelayLine(() => proxy.delay), new DelayLine(() => proxy.delay)] as const
    const pair = { client, remote, lines }
    pairs.add(pair)
    remote.on('error', () => {})
    remote.on('close', () => client.destroy())
    client.on('close', () => {
      remote.destroy()
      pairs.delete(pair)
    })
    lines[0].pipe(remote)
    lines[1].pipe(client)
    if (proxy.mode === 'pass') carry(pair)
  }

  const proxy: TcpProxy = {
    url: '',
    upstream: `${url.protocol}//${url.host}`,
    mode: 'pass',
    delay: 0,
    accepted: 0,
    answer(bytes) {
      for (const { client } of pairs) client.write(bytes)
    },
    cut() {
      for (const { client } of pairs) client.destroy()
    },
    reset() {
      for (const { client } of pairs) client.resetAndDestroy()
    },
    freeze() {
      for (const { client, remote, lines } of pairs) {
        if (!remote) continue
        client.unpipe(lines[0]).pause()
        remote.unpipe(lines[1]).pause()
      }
    },
    thaw() {
      for (const pair of pairs) if (pair.remote) carry(pair)
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
        // Nagle's algorithm would hold back small chunks.
        const listening = createServer({ noDelay: true }, accept).once('error', reject)
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
