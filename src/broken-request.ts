import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { ConnectionError } from 'fastify'
import { BROKEN_REQUESTS } from '../plugins/errors/broken-requests.js'
import { PROBLEM_JSON } from '../plugins/errors/index.js'
import { SECURITY_HEADERS } from '../plugins/security-headers.js'
import { closeInStages } from './lingering-close.js'

const STATUS_OF_NODE_ERROR: Record<string, keyof typeof BROKEN_REQUESTS> = {
  ERR_HTTP_REQUEST_TIMEOUT: 408,
  HPE_HEADER_OVERFLOW: 431
}

/** Answers input that cannot be parsed as HTTP or did not arrive in time, and closes the connection. */
export function refuseConnection(error: ConnectionError, socket: Socket): void {
  if (!socket.writable || isAnswering(socket)) {
    socket.destroy()
    return
  }
  const answer = BROKEN_REQUESTS[STATUS_OF_NODE_ERROR[error.code] ?? 400]
  const body = JSON.stringify(answer)
  const headers = [
    `HTTP/1.1 ${answer.status} ${answer.title}`,
    `Content-Type: ${PROBLEM_JSON}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    ...Object.entries(SECURITY_HEADERS).map(([name, value]) => `${name}: ${value}`),
    'Connection: close'
  ]
  socket.write(`${headers.join('\r\n')}\r\n\r\n${body}`)
  closeInStages(socket)
}

/**
 * True when another answer was sent in part: a second one would become part of its body. Node's own handler reads the
 * same private field; there is no public one.
 */
function isAnswering(socket: Socket & { _httpMessage?: ServerResponse }): boolean {
  return socket._httpMessage?.headersSent === true
}
