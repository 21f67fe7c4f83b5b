import { createClient } from './generated/hey-api/client/index.js'
import {
  createTask,
  deleteTask,
  getTask,
  listTasks,
  toggleTaskCompletion,
  updateTask
} from './generated/hey-api/index.js'
import type { Answer, Connect, Problem } from './script.js'

export const connect: Connect = ({ baseUrl, token }) => {
  const client = createClient({ baseUrl, auth: token })
  return {
    async listTasks(userId, status) {
      return toAnswer(await listTasks({ client, path: { userId }, query: { status } }))
    },
    async createTask(userId, body, key) {
      return toAnswer(
        await createTask({ client, path: { userId }, headers: { 'Idempotency-Key': key }, body })
      )
    },
    async getTask(userId, taskId, ifNoneMatch) {
      return toAnswer(
        await getTask({ client, path: { userId, taskId }, headers: { 'If-None-Match': ifNoneMatch } })
      )
    },
    async updateTask(userId, taskId, body, ifMatch) {
      return toAnswer(
        await updateTask({ client, path: { userId, taskId }, headers: { 'If-Match': ifMatch }, body })
      )
    },
    async toggleTaskCompletion(userId, taskId, body, ifMatch) {
      return toAnswer(
        await toggleTaskCompletion({
          client,
          path: { userId, taskId },
          headers: { 'If-Match': ifMatch },
          body
        })
      )
    },
    async deleteTask(userId, taskId, ifMatch) {
      const { response, error } = await deleteTask({
        client,
        path: { userId, taskId },
        headers: { 'If-Match': ifMatch }
      })
      // Of a 204, `data` is an empty object.
      return toAnswer({ response, error })
    }
  }
}

interface Result<T> {
  data?: T | undefined
  error?: Problem | undefined
  response: Response
}

// Of a 304, `error` is an empty object.
function toAnswer<T>({ data, error, response }: Result<T>): Answer<T> {
  const problem = response.status === 304 ? undefined : error
  return { status: response.status, headers: response.headers, data, problem }
}

/** Never called: it has to be compiled. */
export async function typeErrors() {
  const path = { userId: 'alice' }
  // @ts-expect-error A task needs a title.
  await createTask({ path, body: { description: 'No title' } })
  // @ts-expect-error A title is a string.
  await createTask({ path, body: { title: 1 } })
  const { error } = await listTasks({ path })
  // @ts-expect-error There is no such code.
  return error?.code === 'no_such_code'
}
