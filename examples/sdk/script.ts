import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { components } from './generated/openapi-fetch.js'

type Schemas = components['schemas']
export type Task = Schemas['Task']
export type Problem = Schemas['Problem']
export type CreateTask = Schemas['CreateTask']
export type UpdateTask = Schemas['UpdateTask']
export type SetCompletion = Schemas['SetCompletion']
export type Status = 'all' | 'pending' | 'completed'

/** `data` of a success, `problem` of an error, neither of a 204 or 304. */
export interface Answer<T = undefined> {
  status: number
  headers: Headers
  data?: T | undefined
  problem?: Problem | undefined
}

/** The six operations. Each generated client is wrapped to this, so that one script can run with all. */
export interface TasksClient {
  listTasks(userId: string, status?: Status): Promise<Answer<Task[]>>
  createTask(userId: string, task: CreateTask, idempotencyKey?: string): Promise<Answer<Task>>
  getTask(userId: string, taskId: string, ifNoneMatch?: string): Promise<Answer<Task>>
  updateTask(userId: string, taskId: string, changes: UpdateTask, ifMatch?: string): Promise<Answer<Task>>
  toggleTaskCompletion(
    userId: string,
    taskId: string,
    completion?: SetCompletion,
    ifMatch?: string
  ): Promise<Answer<Task>>
  deleteTask(userId: string, taskId: string, ifMatch?: string): Promise<Answer>
}

export type Connect = (options: { baseUrl: string; token?: string }) => TasksClient

/** Runs every check with one client. `user` is the `sub` of the token, and has no tasks yet. */
export async function run(
  check: (title: string, body: () => Promise<void>) => Promise<void>,
  connect: Connect,
  { baseUrl, user, token }: { baseUrl: string; user: string; token: string }
) {
  const client = connect({ baseUrl, token })
  const create = async (title: string) => ok(await client.createTask(user, { title }), 201)

  await check('createTask, getTask, listTasks', async () => {
    const { data: milk, headers } = ok(
      await client.createTask(user, { title: 'Buy milk', description: null }),
      201
    )
    assert.equal(milk.title, 'Buy milk')
    assert.equal(milk.user_id, user)
    assert.equal(headers.get('location'), `/api/${encodeURIComponent(user)}/tasks/${milk.id}`)
    assert.deepEqual(ok(await client.getTask(user, milk.id), 200).data, milk)
    assert.deepEqual(ok(await client.listTasks(user), 200).data, [milk])
  })

  await check('updateTask changes only what is named', async () => {
    const { data: before } = await create('Bred')
    const { data: after } = ok(await client.updateTask(user, before.id, { title: 'Bread' }), 200)
    assert.deepEqual({ ...after, updated_at: null }, { ...before, title: 'Bread', updated_at: null })
  })

  await check('toggleTaskCompletion flips without a body, and sets with one; listTasks filters', async () => {
    const { data: task } = await create('Toggle')
    assert.equal(ok(await client.toggleTaskCompletion(user, task.id), 200).data.completed, true)
    const ids = async (status: Status) =>
      ok(await client.listTasks(user, status), 200).data.map(({ id }) => id)
    assert.deepEqual(await ids('completed'), [task.id])
    assert.ok(!(await ids('pending')).includes(task.id))
    const set = { completed: false }
    for (let time = 0; time < 2; time++) {
      assert.equal(ok(await client.toggleTaskCompletion(user, task.id, set), 200).data.completed, false)
    }
    assert.deepEqual(await ids('completed'), [])
  })

  await check('deleteTask answers 204, and then the task is gone', async () => {
    const { data: task } = await create('Delete')
    const { status, data, problem } = await client.deleteTask(user, task.id)
    assert.deepEqual([status, data, problem], [204, undefined, undefined])
    fails(await client.deleteTask(user, task.id), 404, 'not_found')
  })

  await check('a create that is repeated with its Idempotency-Key makes one task', async () => {
    const key = randomUUID()
    const first = ok(await client.createTask(user, { title: 'Once' }, key), 201)
    const second = ok(await client.createTask(user, { title: 'Once' }, key), 201)
    assert.deepEqual(second.data, first.data)
    assert.equal(second.headers.get('idempotency-replayed'), 'true')
    const { data: tasks } = ok(await client.listTasks(user), 200)
    assert.equal(tasks.filter(({ title }) => title === 'Once').length, 1)
    fails(await client.createTask(user, { title: 'Twice' }, key), 422, 'idempotency_key_reused')
  })

  await check('If-Match lets a change pass only on the version that was read', async () => {
    const { data: task, headers } = await create('Version 1')
    const read = tagOf(headers)
    const changed = ok(await client.updateTask(user, task.id, { title: 'Version 2' }, read), 200)
    const refused = [
      await client.updateTask(user, task.id, { title: 'Version 3' }, read),
      await client.toggleTaskCompletion(user, task.id, { completed: true }, read),
      await client.deleteTask(user, task.id, read)
    ]
    for (const answer of refused) {
      fails(answer, 412, 'precondition_failed')
      assert.equal(tagOf(answer.headers), tagOf(changed.headers))
    }
    assert.deepEqual(ok(await client.getTask(user, task.id), 200).data, changed.data)
    assert.equal((await client.deleteTask(user, task.id, tagOf(changed.headers))).status, 204)
  })

  await check('If-None-Match gets a 304 without data or problem', async () => {
    const { data: task, headers } = await create('Unchanged')
    const { status, data, problem } = await client.getTask(user, task.id, tagOf(headers))
    assert.deepEqual([status, data, problem], [304, undefined, undefined])
  })

  await check('400: an If-Match that is no entity tag', async () => {
    const { data: task } = await create('Bad request')
    fails(await client.updateTask(user, task.id, { title: 'No' }, 'no tag'), 400, 'bad_request')
  })

  await check('401: no token, or a wrong one', async () => {
    const without = await connect({ baseUrl }).listTasks(user)
    fails(without, 401, 'unauthorized')
    assert.match(without.headers.get('www-authenticate') ?? '', /^Bearer /)
    fails(await connect({ baseUrl, token: 'wrong' }).listTasks(user), 401, 'unauthorized')
  })

  await check("403: another user's path, with every operation", async () => {
    const { data: task } = await create('Mine')
    const other = `${user} too`
    const answers = [
      await client.listTasks(other),
      await client.createTask(other, { title: 'Yours' }),
      await client.getTask(other, task.id),
      await client.updateTask(other, task.id, { title: 'Yours' }),
      await client.toggleTaskCompletion(other, task.id),
      await client.deleteTask(other, task.id)
    ]
    for (const answer of answers) fails(answer, 403, 'forbidden')
  })

  await check('404: a task that does not exist, with every operation that names one', async () => {
    const answers = [
      await client.getTask(user, randomUUID()),
      await client.updateTask(user, randomUUID(), { title: 'Nothing' }),
      await client.toggleTaskCompletion(user, randomUUID()),
      await client.deleteTask(user, randomUUID())
    ]
    for (const answer of answers) fails(answer, 404, 'not_found')
  })

  await check('413: a body of more than 64 KiB', async () => {
    const description = 'x'.repeat(70_000)
    fails(await client.createTask(user, { title: 'Large', description }), 413, 'body_too_large')
  })

  await check('422: fields, the query or a header that break their schema, and where', async () => {
    const { data: task } = await create('Valid')
    const pathOf = (answer: Answer<unknown>) => fails(answer, 422, 'validation_failed').errors?.[0]?.path
    assert.equal(pathOf(await client.createTask(user, { title: '' })), '/title')
    assert.equal(pathOf(await client.updateTask(user, task.id, { title: ' ' })), '/title')
    assert.ok(pathOf(await client.createTask(user, { title: 'Key' }, 'x'.repeat(256))) !== undefined)
    // Values from outside the program are not checked by its types.
    assert.ok(pathOf(await client.listTasks(user, 'done' as Status)) !== undefined)
    const completion = { completed: 'yes' } as unknown as SetCompletion
    assert.equal(pathOf(await client.toggleTaskCompletion(user, task.id, completion)), '/completed')
  })
}

function ok<T>({ status, headers, data, problem }: Answer<T>, expected: number) {
  assert.equal(status, expected, problem?.detail)
  assert.equal(problem, undefined)
  assert.ok(data !== undefined)
  return { headers, data }
}

function fails({ status, data, problem }: Answer<unknown>, expected: number, code: Problem['code']): Problem {
  assert.equal(data, undefined)
  assert.ok(problem, `${status} without a problem`)
  assert.deepEqual([status, problem.status, problem.code], [expected, expected, code])
  assert.ok(problem.title !== '' && problem.detail !== '')
  return problem
}

function tagOf(headers: Headers): string {
  const tag = headers.get('etag')
  assert.ok(tag)
  return tag
}
