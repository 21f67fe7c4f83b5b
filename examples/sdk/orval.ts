import {
  createTask,
  deleteTask,
  getTask,
  listTasks,
  toggleTaskCompletion,
  updateTask
} from './generated/orval.js'
import { setBaseUrl } from './orval-fetch.js'
import type { Answer, Connect, Problem } from './script.js'

export const connect: Connect = ({ baseUrl, token }) => {
  setBaseUrl(baseUrl)
  const options = token ? { headers: { Authorization: `Bearer ${token}` } } : {}
  return {
    async listTasks(userId, status) {
      const answer = await listTasks(encode(userId), { status }, options)
      return answer.status === 200 ? answer : failed(answer)
    },
    async createTask(userId, body, key) {
      const headers = key ? { 'Idempotency-Key': key } : {}
      const answer = await createTask(encode(userId), body, headers, options)
      return answer.status === 201 ? answer : failed(answer)
    },
    async getTask(userId, taskId, ifNoneMatch) {
      const headers = ifNoneMatch ? { 'If-None-Match': ifNoneMatch } : {}
      const answer = await getTask(encode(userId), taskId, headers, options)
      if (answer.status === 304) return { status: answer.status, headers: answer.headers }
      return answer.status === 200 ? answer : failed(answer)
    },
    async updateTask(userId, taskId, body, ifMatch) {
      const answer = await updateTask(encode(userId), taskId, body, versionOf(ifMatch), options)
      return answer.status === 200 ? answer : failed(answer)
    },
    async toggleTaskCompletion(userId, taskId, body = {}, ifMatch) {
      const answer = await toggleTaskCompletion(encode(userId), taskId, body, versionOf(ifMatch), options)
      return answer.status === 200 ? answer : failed(answer)
    },
    async deleteTask(userId, taskId, ifMatch) {
      const answer = await deleteTask(encode(userId), taskId, versionOf(ifMatch), options)
      return answer.status === 204 ? { status: answer.status, headers: answer.headers } : failed(answer)
    }
  }
}

/** The functions put the user id into the path as it is. */
const encode = encodeURIComponent

const versionOf = (ifMatch?: string) => (ifMatch ? { 'If-Match': ifMatch } : {})

const failed = ({
  status,
  headers,
  data
}: {
  status: number
  headers: Headers
  data: Problem
}): Answer<never> => ({
  status,
  headers,
  problem: data
})

/** Never called: it has to be compiled. */
export async function typeErrors() {
  // @ts-expect-error A task needs a title.
  await createTask('alice', { description: 'No title' })
  // @ts-expect-error A title is a string.
  await createTask('alice', { title: 1 })
  const answer = await listTasks('alice')
  // @ts-expect-error There is no such code.
  return answer.status !== 200 && answer.data.code === 'no_such_code'
}
