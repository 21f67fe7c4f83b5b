import { createServer, type Server, type Socket, connect as tcp } from 'node:net'
import { Transform } from 'node:stream'
import type { Test } from './tap.js'

/**
 * What a proxy does with the connections that come: pass them on, close each at once, or take them and say nothing. Or
 * it agrees to TLS, as PostgreSQL does, and then says nothing more, or hangs up in the middle of the handshake.
 */
export type Mode = 'pass' | 'close' | 'silent' | 'silent handshake' | 'cut handshake'

export interface TcpProxy {
  /** The given URL with this proxy's port in it. */
  url: string
  /** Where it leads, without a path. */
  upstream: string
  mode: Mode
  /** By how many milliseconds what is passed on comes later, in both directions and on connections there are, too. */
  delay: number
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

interface Connected {
  client: Socket
  remote: Socket
  /** What goes to the server, and what comes from it. */
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

/** Passes on each chunk later by as much as `milliseconds` says when it comes, and all in their order. */
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
    // A chunk that comes after the delay became shorter still waits for those before it.
    this.#due = Math.max(this.#due, performance.now() + delay)
    this.#waiting.push(chunk)
    // Timers may fire out of order by a millisecond, so each passes on whatever is first.
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

/** A network between the service and a PostgreSQL server, with the ways in which networks fail. Ends with the test. */
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
    if (proxy.mode !== 'pass') {
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
    carry(pair)
  }

  const proxy: TcpProxy = {
    url: '',
    upstream: `${url.protocol}//${url.host}`,
    mode: 'pass',
    delay: 0,
    accepted: 0,
    cut() {
      for (const { client } of pairs) client.destroy()
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
        // A network holds nothing back until more comes, as Nagle's algorithm would here.
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
