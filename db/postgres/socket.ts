import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { DatabaseAddress, PostgresTarget } from './url.js'

/** PostgreSQL's protocol, "SSL session encryption" and "Canceling requests in progress". */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
const CANCEL_REQUEST_CODE = 80_877_102
const ACCEPTED = 'S'.charCodeAt(0)
const REFUSED = 'N'.charCodeAt(0)

/** A connected socket, below which there is another one when it is encrypted. */
export interface Wire {
  socket: Socket
  /** Ends it by a reset: the server then drops what it has not read, where after a plain end it would still do it. */
  reset(): void
}

/**
 * Connects to a server, and negotiates TLS as the target asks for it.
 *
 * The driver can do both, but then nobody listens to errors of the sockets it has let go of, and an error that nobody
 * listens to ends the process.
 *
 * @throws Error of the system, of TLS, or with code ETIMEDOUT after `milliseconds`
 */
export async function connectSocket(
  { tls }: PostgresTarget,
  address: DatabaseAddress,
  milliseconds: number
): Promise<Wire> {
  const tcp = keepListening(connectTcp('path' in address ? address : { ...address, noDelay: true }))
  const wire: Wire = {
    socket: tcp,
    reset() {
      wire.socket.destroy()
      if (tcp.connecting || 'path' in address) tcp.destroy()
      else tcp.resetAndDestroy()
    }
  }
  const timer = setTimeout(() => {
    wire.socket.destroy(Object.assign(new Error('the server did not answer in time'), { code: 'ETIMEDOUT' }))
  }, milliseconds)
  try {
    await eventOf(tcp, 'connect')
    if (tls === undefined || 'path' in address) return wire
    if (!tls.direct) {
      tcp.write(SSL_REQUEST)
      const answer: Buffer = await eventOf(tcp, 'data')
      // Further bytes would be read as if they had come encrypted (CVE-2021-23222).
      if (answer.length !== 1) throw new Error('the server sent more than an answer to the request for TLS')
      if (answer[0] === REFUSED && !tls.required) return wire
      if (answer[0] !== ACCEPTED) throw new Error('the server does not support TLS')
    }
    const alpn = tls.direct ? { ALPNProtocols: ['postgresql'] } : {}
    wire.socket = keepListening(connectTls({ socket: tcp, ...alpn, ...tls.optionsFor(address.host) }))
    await eventOf(wire.socket, 'secureConnect')
    return wire
  } catch (error) {
    wire.reset()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** What the event carries; rejects when the socket fails or closes before. */
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

/** Asks a server to cancel the statement that one of its backends is running. Failures need no answer. */
export async function requestCancel(
  target: PostgresTarget,
  address: DatabaseAddress,
  { pid, secret }: { pid: number; secret: number },
  milliseconds: number
): Promise<void> {
  try {
    const { socket, reset } = await connectSocket(target, address, milliseconds)
    const message = Buffer.alloc(16)
    message.writeInt32BE(16, 0)
    message.writeInt32BE(CANCEL_REQUEST_CODE, 4)
    message.writeUInt32BE(pid, 8)
    message.writeUInt32BE(secret, 12)
    // The server closes the connection when it has passed the request on.
    socket.end(message)
    socket.resume()
    setTimeout(reset, milliseconds).unref()
  } catch {
    // The connection whose statement it is will be found dead.
  }
}

/**
 * Gives a socket an error listener that stays. The driver removes all listeners when a socket has closed, and a socket
 * below TLS can still fail then (postgres.js, closed() in connection.js; postgres issue 1208 is of the same kind).
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
