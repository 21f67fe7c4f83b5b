import { connect } from 'node:net'
import type { Answer } from './api.js'

/** Longer than the timeout of a request. */
const PATIENCE_MS = 30_000

/** Sends these bytes over a new connection, and returns everything until the server closes it. */
export function sendRaw(host: string, port: number, bytes: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, host)
    let received = ''
    socket.on('data', (chunk) => {
      received += chunk
    })
    socket.on('error', reject)
    socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error(`the server is silent after: ${received}`)))
    socket.on('close', () => resolve(received))
    socket.write(bytes)
  })
}

/** Parses the only answer in a server's output. */
export function parseRaw(received: string): Answer {
  const end = received.indexOf('\r\n\r\n')
  const [statusLine = '', ...lines] = received.slice(0, end).split('\r\n')
  const headers = Object.fromEntries(
    lines.map((line) => {
      const colon = line.indexOf(':')
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
    })
  )
  const text = received.slice(end + 4)
  return {
    status: Number(statusLine.split(' ')[1]),
    headers,
    text,
    json: text ? JSON.parse(text) : undefined
  }
}
