import createClient from 'openapi-fetch'
import type { paths } from './generated/openapi-fetch.js'
import type { Answer, Connect, Problem } from './script.js'

const COLLECTION = '/api/{userId}/tasks'
const TASK = '/api/{userId}/tasks/{taskId}'
const COMPLETE = '/api/{userId}/tasks/{taskId}/complete'

export const connect: Connect = ({ baseUrl, token }) => {
  const client = createClient<paths>({
    baseUrl,
    headers: token ? { Authorization: `Bearer ${token}` } : {}
  })
  return {
    async listTasks(userId, status) {
      const query = status ? { status } : {}
      return toAnswer(await client.GET(COLLECTION, { params: { path: { userId }, query } }))
    },
    async createTask(userId, body, key) {
      const header = key ? { 'Idempotency-Key': key } : {}
      return toAnswer(await client.POST(COLLECTION, { params: { path: { userId }, header }, body }))
    },
    async getTask(userId, taskId, ifNoneMatch) {
      const header = ifNoneMatch ? { 'If-None-Match': ifNoneMatch } : {}
      return toAnswer(await client.GET(TASK, { params: { path: { userId, taskId }, header } }))
    },
    async updateTask(userId, taskId, body, ifMatch) {
      return toAnswer(await client.PATCH(TASK, { params: params(userId, taskId, ifMatch), body }))
    },
    async toggleTaskCompletion(userId, taskId, body, ifMatch) {
      return toAnswer(await client.PATCH(COMPLETE, { params: params(userId, taskId, ifMatch), body }))
    },
    async deleteTask(userId, taskId, ifMatch) {
      return toAnswer(await client.DELETE(TASK, { params: params(userId, taskId, ifMatch) }))
    }
  }
}

const params = (userId: string, taskId: string, ifMatch?: string) => ({
  path: { userId, taskId },
  header: ifMatch ? { 'If-Match': ifMatch } : {}
})

interface Result<T> {
  data?: T | undefined
  error?: Problem | undefined
  response: Response
}

// Of a 304, which has no body, `error` is an empty string.
function toAnswer<T>({ data, error, response }: Result<T>): Answer<T> {
  return { status: response.status, headers: response.headers, data, problem: error || undefined }
}

/** Never called: it has to be compiled. */
export async function typeErrors() {
  const client = createClient<paths>()
  const path = { userId: 'alice' }
  // @ts-expect-error A task needs a title.
  await client.POST(COLLECTION, { params: { path }, body: { description: 'No title' } })
  // @ts-expect-error A title is a string.
  await client.POST(COLLECTION, { params: { path }, body: { title: 1 } })
  const { error } = await client.GET(COLLECTION, { params: { path } })
  // @ts-expect-error There is no such code.
  return error?.code === 'no_such_code'
}
