import { connect, type Socket } from 'node:net'
import type { Answer } from '../support/api.js'

/** Timeout of a request or an answer. It is longer than the service's own. */
const PATIENCE_MS = 120_000

/** An answer, and the position of its end in the received bytes. */
interface Parsed {
  answer: Answer
  end: number
}

/**
 * Parses the first answer in a server's output, without interim ones (1xx). Returns undefined if it is incomplete.
 *
 * @param isHead an answer to HEAD ends with its headers
 */
function parseAnswer(received: Buffer, isHead: boolean): Parsed | undefined {
  const headEnd = received.indexOf('\r\n\r\n')
  if (headEnd < 0) return undefined
  const [statusLine = '', ...lines] = received.subarray(0, headEnd).toString('latin1').split('\r\n')
  if (!/^HTTP\/1\.1 \d{3} /.test(statusLine)) throw new Error(`no status line: ${JSON.stringify(statusLine)}`)
  const status = Number(statusLine.slice(9, 12))
  const start = headEnd + 4
  if (status < 200) {
    const rest = parseAnswer(received.subarray(start), isHead)
    return rest && { ...rest, end: start + rest.end }
  }
  const headers: Answer['headers'] = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim()
  }
  const body = isHead || status === 204 || status === 304 ? empty(start) : bodyOf(received, start, headers)
  if (body === undefined) return undefined
  const text = body.bytes.toString()
  const json = text === '' ? undefined : JSON.parse(text)
  return { answer: { status, headers, text, json }, end: body.end }
}

/** Waits until a connection has ended. Fails if the server leaves it open. */
function ended(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    if (socket.closed) return resolve()
    socket.setTimeout(PATIENCE_MS, () => {
      reject(new Error('the server left the connection open'))
      socket.destroy()
    })
    socket.once('close', () => resolve())
  })
}

const empty = (end: number) => ({ bytes: Buffer.alloc(0), end })

function bodyOf(received: Buffer, start: number, headers: Answer['headers']) {
  if (headers['transfer-encoding'] !== 'chunked') {
    const end = start + Number(headers['content-length'] ?? 0)
    return received.length < end ? undefined : { bytes: received.subarray(start, end), end }
  }
  const chunks: Buffer[] = []
  for (let at = start; ; ) {
    const line = received.indexOf('\r\n', at)
    if (line < 0) return undefined
    const size = Number.parseInt(received.subarray(at, line).toString(), 16)
    at = line + 2 + size + 2
    if (received.length < at) return undefined
    if (size === 0) return { bytes: Buffer.concat(chunks), end: at }
    chunks.push(received.subarray(line + 2, at - 2))
  }
}

/** Every complete answer in a server's output, and the rest after the last. */
export function parseAnswers(received: Buffer): { answers: Answer[]; rest: Buffer } {
  const answers: Answer[] = []
  let rest = received
  for (let one = parseAnswer(rest, false); one; one = parseAnswer(rest, false)) {
    answers.push(one.answer)
    rest = rest.subarray(one.end)
  }
  return { answers, rest }
}

/**
 * Sends these bytes over a new connection.
 *
 * @returns everything until the server closes the connection; fails if it does not
 */
export async function converse(port: number, bytes: Buffer): Promise<Buffer> {
  const socket = connect(port, '127.0.0.1')
  const received: Buffer[] = []
  socket.on('data', (chunk) => received.push(chunk))
  // After its answer a server need not read the rest of the request.
  socket.on('error', () => {})
  socket.write(bytes)
  await ended(socket)
  return Buffer.concat(received)
}

/**
 * A client that sends exactly the given bytes. It sends one request after another on one connection, as long as the
 * server keeps that open. Node's own client would refuse, change or hide these requests.
 */
export class Wire {
  #socket: Socket | undefined
  #received = Buffer.alloc(0)

  constructor(readonly port: number) {}

  /** Fails unless there is exactly one answer. */
  async ask(request: Buffer, isHead: boolean): Promise<Answer> {
    if (this.#received.length > 0) throw new Error(`bytes that nobody asked for: ${this.#received}`)
    const socket = this.#open()
    socket.write(request)
    const answer = await this.#answer(socket, isHead)
    if (answer.headers.connection === 'close') {
      await ended(socket)
      this.close()
    }
    return answer
  }

  close(): void {
    this.#socket?.destroy()
    this.#socket = undefined
  }

  #open(): Socket {
    if (this.#socket && !this.#socket.destroyed) return this.#socket
    const socket = connect(this.port, '127.0.0.1').setNoDelay(true)
    socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk])
    })
    socket.on('error', () => {})
    this.#socket = socket
    return socket
  }

  #answer(socket: Socket, isHead: boolean): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const look = () => {
        try {
          const parsed = parseAnswer(this.#received, isHead)
          if (parsed === undefined) return
          this.#received = this.#received.subarray(parsed.end)
          settle(() => resolve(parsed.answer))
        } catch (error) {
          settle(() => reject(error))
        }
      }
      const gone = () => settle(() => reject(new Error(`no answer, but: ${this.#received}`)))
      const timer = setTimeout(() => {
        settle(() => reject(new Error(`no answer within ${PATIENCE_MS} ms`)))
      }, PATIENCE_MS)
      const settle = (end: () => void) => {
        clearTimeout(timer)
        socket.off('data', look).off('close', gone)
        end()
      }
      socket.on('data', look).on('close', gone)
    })
  }
}
