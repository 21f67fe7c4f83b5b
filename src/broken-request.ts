import { type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { ConnectionError } from 'fastify'
import { PROBLEM_JSON, problem } from '../plugins/errors/index.js'
import { SECURITY_HEADERS } from '../plugins/security-headers.js'
import { closeInStages } from './lingering-close.js'

/** Answers input that cannot be parsed as HTTP, or that did not come in time. The connection ends with it. */
export function refuseConnection(error: ConnectionError, socket: Socket): void {
  if (!socket.writable || isAnswering(socket)) {
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
  socket.write(`${headers.join('\r\n')}\r\n\r\n${body}`)
  closeInStages(socket)
}

/**
 * Whether part of another answer was sent, in which this one would end up. Node's own handler asks the same way, and
 * there is no public one.
 */
function isAnswering(socket: Socket & { _httpMessage?: ServerResponse }): boolean {
  return socket._httpMessage?.headersSent === true
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
