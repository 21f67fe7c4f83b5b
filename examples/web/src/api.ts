import createClient from 'openapi-fetch'
import { authClient } from './auth'
import type { components, paths } from './openapi'

export type Task = components['schemas']['Task']
type Problem = components['schemas']['Problem']

const API_URL = import.meta.env.VITE_API_URL ?? 'http://127.0.0.1:3000'
/** Longer than the service's own timeout of 5 seconds. */
const TIMEOUT_MS = 10_000

/** The session has ended: the user must sign in again. */
export class SignedOut extends Error {}

/** There was no answer, or a 503. The same request may succeed later. */
export class Unavailable extends Error {
  /** Undefined if there was no answer, or no Retry-After. */
  readonly retryAfterMs: number | undefined
  readonly answered: boolean

  constructor(response?: Response) {
    super('unavailable')
    const seconds = Number(response?.headers.get('Retry-After'))
    this.retryAfterMs = seconds > 0 ? seconds * 1_000 : undefined
    this.answered = response !== undefined
  }
}

/** The service refused the request. The message is the problem's `detail`, a sentence for the user. */
export class Refused extends Error {
  readonly status: number

  constructor(status: number, problem: Problem | undefined) {
    super(problem?.detail ?? `The service answered ${status}.`)
    this.status = status
  }
}

/** The operations of one user. Each rejects with SignedOut, Unavailable or Refused. */
export function tasksOf(userId: string) {
  // Only in memory, so that no script can read a token from the browser's storage.
  let token: string | undefined

  /** Sends a request with the user's token. If that has expired, it retries once with a new one. */
  async function send(request: Request): Promise<Response> {
    for (const isLast of [false, true]) {
      token ??= await fetchToken()
      const copy = request.clone()
      copy.headers.set('Authorization', `Bearer ${token}`)
      const response = await fetch(copy, { signal: AbortSignal.timeout(TIMEOUT_MS) })
      if (response.status !== 401) return response
      token = undefined
      if (isLast) break
    }
    throw new SignedOut()
  }

  const client = createClient<paths>({ baseUrl: API_URL, fetch: send })
  const user = { userId }
  const task = (taskId: string) => ({ userId, taskId })

  return {
    list: () => answer(client.GET('/api/{userId}/tasks', { params: { path: user } })),

    /** Creates one task for each key, even if it is called again. */
    create: (title: string, key: string) =>
      answer(
        client.POST('/api/{userId}/tasks', {
          params: { path: user, header: { 'Idempotency-Key': key } },
          body: { title }
        })
      ),

    get: (id: string) => answer(client.GET('/api/{userId}/tasks/{taskId}', { params: { path: task(id) } })),

    /** Refused with 412 if the task no longer has the version in `etag`. */
    update: (id: string, fields: { title: string; description: string | null }, etag: string) =>
      answer(
        client.PATCH('/api/{userId}/tasks/{taskId}', {
          params: { path: task(id), header: { 'If-Match': etag } },
          body: fields
        })
      ),

    /** Sets the value instead of flipping it, so that a retry is safe. */
    complete: (id: string, completed: boolean) =>
      answer(
        client.PATCH('/api/{userId}/tasks/{taskId}/complete', {
          params: { path: task(id) },
          body: { completed }
        })
      ),

    delete: (id: string) =>
      answer(client.DELETE('/api/{userId}/tasks/{taskId}', { params: { path: task(id) } }))
  }
}

async function fetchToken(): Promise<string> {
  const { data, error } = await authClient.token()
  if (data) return data.token
  if (error.status === 401) throw new SignedOut()
  throw new Unavailable()
}

/** An answer of the service. An answer with one task has its version. */
async function answer<T>(call: Promise<{ data?: T; error?: Problem; response: Response }>) {
  const { data, error, response } = await call.catch((error) => {
    // fetch rejects without a network, if the service is down, and after the timeout.
    throw error instanceof SignedOut ? error : new Unavailable()
  })
  if (response.status === 503) throw new Unavailable(response)
  if (!response.ok) throw new Refused(response.status, error)
  return { data: data as T, etag: response.headers.get('ETag') ?? '*' }
}
