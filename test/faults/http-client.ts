import { Agent, request } from 'node:http'
import { sign } from '../support/sign.js'
import type { Answer, Request, SeenTask } from './history.js'

/** Timeout of the client, far beyond the service's deadlines. */
const PATIENCE_MS = 20_000

/** Sends a request of the history over HTTP. */
function httpOf(request: Request): { method: string; path: string; body?: object; headers?: object } {
  switch (request.kind) {
    case 'create':
      return {
        method: 'POST',
        path: '',
        body: { title: request.title, description: request.mark, completed: request.completed },
        ...(request.key !== undefined && { headers: { 'idempotency-key': request.key } })
      }
    case 'update':
      return {
        method: 'PATCH',
        path: `/${request.id}`,
        body: { title: request.title },
        ...(request.version !== undefined && { headers: { 'if-match': `"${request.version}"` } })
      }
    case 'toggle':
      return { method: 'PATCH', path: `/${request.id}/complete` }
    case 'set':
      return {
        method: 'PATCH',
        path: `/${request.id}/complete`,
        body: { completed: request.completed }
      }
    case 'delete':
      return { method: 'DELETE', path: `/${request.id}` }
    case 'get':
      return { method: 'GET', path: `/${request.id}` }
    case 'list':
      return { method: 'GET', path: `?status=${request.status}` }
  }
}

interface WireTask {
  id: string
  title: string
  description: string
  completed: boolean
}

const seen = ({ id, title, description, completed }: WireTask): SeenTask => ({
  id,
  mark: description,
  title,
  completed
})

/** A client with keep-alive connections, like a browser. */
export class HttpClient {
  readonly #agent = new Agent({ keepAlive: true })
  readonly #tokens = new Map<string, string>()

  /** @returns undefined if the connection failed before the answer was complete */
  async send(api: string, user: string, what: Request): Promise<Answer | undefined> {
    let token = this.#tokens.get(user)
    if (token === undefined) {
      token = await sign({ sub: user })
      this.#tokens.set(user, token)
    }
    const { method, path, body, headers } = httpOf(what)
    const text = body && JSON.stringify(body)
    return new Promise((resolve) => {
      const sent = request(
        `${api}/api/${user}/tasks${path}`,
        {
          agent: this.#agent,
          method,
          timeout: PATIENCE_MS,
          headers: {
            authorization: `Bearer ${token}`,
            ...(text && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
            ...headers
          }
        },
        (response) => {
          let received = ''
          response.setEncoding('utf8')
          response.on('data', (chunk) => {
            received += chunk
          })
          response.on('error', () => resolve(undefined))
          response.on('end', () =>
            resolve(answerOf(response.statusCode as number, response.headers, received))
          )
        }
      )
      sent.on('timeout', () => sent.destroy(new Error('no answer')))
      sent.on('error', () => resolve(undefined))
      sent.end(text)
    })
  }

  close(): void {
    this.#agent.destroy()
  }
}

function answerOf(status: number, headers: NodeJS.Dict<string | string[]>, text: string): Answer {
  const json = text === '' ? undefined : JSON.parse(text)
  const tag = /^"(\d+)"$/.exec(String(headers.etag))
  const isError = status >= 400
  return {
    status,
    ...(isError && { code: json?.code, hasRetryAfter: /^\d+$/.test(String(headers['retry-after'])) }),
    ...(tag && { version: Number(tag[1]) }),
    ...(status === 201 && { replayed: headers['idempotency-replayed'] === 'true' }),
    ...(!isError && Array.isArray(json) && { tasks: json.map(seen) }),
    ...(!isError && json && !Array.isArray(json) && { task: seen(json) })
  }
}
