import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { DatabaseAddress, PostgresTarget } from './url.js'

/** https://www.postgresql.org/docs/current/protocol-message-formats.html */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
const CANCEL_REQUEST_CODE = 80_877_102
const ACCEPTED = 'S'.charCodeAt(0)
const REFUSED = 'N'.charCodeAt(0)

/** A connected socket. With TLS there is a TCP socket below it. */
export interface Wire {
  socket: Socket
  close(): void
  /**
   * Closes with a TCP reset. Then PostgreSQL cannot send the running statement's answer, and executes none of those behind
   * it. After a normal close it would execute at least one more.
   */
  reset(): void
}

/**
 * Connects to a server, and negotiates TLS.
 *
 * The driver could do both, but it removes its error listeners from sockets that it no longer needs. An error without a
 * listener ends the process.
 *
 * @throws Error of the system or of TLS, or with code ETIMEDOUT after `milliseconds`
 */
export async function connectSocket(
  { tls }: PostgresTarget,
  address: DatabaseAddress,
  milliseconds: number
): Promise<Wire> {
  const tcp = keepListening(connectTcp('path' in address ? address : { ...address, noDelay: true }))
  const wire: Wire = {
    socket: tcp,
    close() {
      wire.socket.destroy()
      tcp.destroy()
    },
    reset() {
      // A Unix socket needs no reset: as soon as one end is closed, the other cannot send.
      if (!('path' in address)) tcp.resetAndDestroy()
      wire.close()
    }
  }
  const timer = setTimeout(() => {
    wire.socket.destroy(noAnswerInTime())
  }, milliseconds)
  try {
    await eventOf(tcp, 'connect')
    if (tls === undefined || 'path' in address) return wire
    if (!tls.direct) {
      tcp.write(SSL_REQUEST)
      const answer: Buffer = await eventOf(tcp, 'data')
      // An attacker could inject further bytes, which would be read as if they were encrypted (CVE-2021-23222).
      if (answer.length !== 1) throw new Error('the server sent more than an answer to the request for TLS')
      if (answer[0] === REFUSED && !tls.required) return wire
      if (answer[0] !== ACCEPTED) throw new Error('the server does not support TLS')
    }
    const alpn = tls.direct ? { ALPNProtocols: ['postgresql'] } : {}
    wire.socket = keepListening(connectTls({ socket: tcp, ...alpn, ...tls.optionsFor(address.host) }))
    await eventOf(wire.socket, 'secureConnect')
    return wire
  } catch (error) {
    wire.close()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

export const noAnswerInTime = () =>
  Object.assign(new Error('the server did not answer in time'), { code: 'ETIMEDOUT' })

/** Resolves with the event's value. Rejects if the socket fails or closes first. */
function eventOf<T>(socket: Socket, event: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const closed = () => reject(new Error('the server closed the connection'))
    socket.once('error', reject).once('close', closed)
    socket.once(event, (value: T) => {
      socket.off('error', reject).off('close', closed)
      resolve(value)
    })
  })
}

/**
 * Asks a server to cancel a backend's current statement. Resolves when the server has got the request, or after a while.
 * Failures are ignored.
 */
export async function requestCancel(
  target: PostgresTarget,
  address: DatabaseAddress,
  { pid, secret }: { pid: number; secret: number },
  milliseconds: number
): Promise<void> {
  try {
    const { socket, close } = await connectSocket(target, address, milliseconds)
    const message = Buffer.alloc(16)
    message.writeInt32BE(16, 0)
    message.writeInt32BE(CANCEL_REQUEST_CODE, 4)
    message.writeUInt32BE(pid, 8)
    message.writeUInt32BE(secret, 12)
    // The server closes the connection after it has signalled the backend. This end must not close first: PgBouncer 1.18
    // would crash (pgbouncer issue 801).
    socket.write(message)
    socket.resume()
    const timer = setTimeout(close, milliseconds).unref()
    if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
    clearTimeout(timer)
  } catch {
    // The session closes its connection if the cancel request has no effect.
  }
}

/**
 * Adds a permanent error listener. The driver removes all listeners from a closed socket (closed() in its connection.js),
 * and the TCP socket below TLS can still fail then. See porsager/postgres issue 1208.
 */
function keepListening<S extends Socket>(socket: S): S {
  const ignore = () => {}
  const removeAllListeners = socket.removeAllListeners.bind(socket)
  socket.removeAllListeners = (...names) => {
    removeAllListeners(...names)
    return socket.on('error', ignore)
  }
  return socket.on('error', ignore)
}
