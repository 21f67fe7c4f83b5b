import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { ConnectionError } from 'fastify'
import { PROBLEM_JSON, problem } from '../plugins/errors.js'
import { SECURITY_HEADERS } from '../plugins/security-headers.js'

/** Answers input that cannot be parsed as HTTP, or that did not come in time. The connection ends with it. */
export function refuseConnection(error: ConnectionError, socket: Socket): void {
  if (!socket.writable) {
    socket.destroy()
    return
  }
  const { status, phrase, body } = answerTo(error.code)
  const headers = [
    `HTTP/1.1 ${status} ${phrase}`,
    `Content-Type: ${PROBLEM_JSON}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    ...Object.entries(SECURITY_HEADERS).map(([name, value]) => `${name}: ${value}`),
    'Connection: close'
  ]
  socket.end(`${headers.join('\r\n')}\r\n\r\n${body}`)
}

function answerTo(code: string) {
  const [status, detail] =
    code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'The request headers are larger than 16 KiB.']
      : code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'The request did not arrive in time.']
        : [400, 'This is not a valid HTTP request.']
  const phrase = STATUS_CODES[status]
  return {
    status,
    phrase,
    body: JSON.stringify({ ...problem('bad_request', detail), title: phrase, status })
  }
}
