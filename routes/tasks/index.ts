import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import type { Task, VersionedTask } from '../../db/schema.js'
import { StaleVersion, taskRepository } from '../../db/tasks.js'
import { PreconditionFailed, TaskNotFound } from '../../plugins/errors/catalogue.js'
import { entityTag, isNamed, matchedVersions } from './entity-tag.js'
import { jsonArray } from './json-array.js'
import * as schemas from './schemas.js'

const COMPLETED = { all: undefined, pending: false, completed: true }

/** The six operations on tasks, below `/api/:userId/tasks`. The user in the path must be the user of the token. */
const routes: FastifyPluginAsyncTypebox = async (app) => {
  const tasks = taskRepository(app.db)

  for (const schema of [schemas.Task, schemas.CreateTask, schemas.UpdateTask, schemas.SetCompletion]) {
    app.addSchema(schema)
  }
  app.addHook('preHandler', app.requireOwner)

  // All handlers take the user from the token, never from the path.

  app.get('', {
    schema: schemas.listTasks,
    // An HTML form sends an empty status if its user chose none.
    preValidation: (request, _reply, done) => {
      if ((request.query.status as string) === '') request.query.status = 'all'
      done()
    },
    handler: async (request, reply) => {
      const list = await tasks.list(request.user.sub, COMPLETED[request.query.status ?? 'all'])
      if (Array.isArray(list)) return list
      // The serialiser that Fastify uses for the array above. Fastify's type for it does not know this route's schema.
      const serialize = reply.getSerializationFunction('200', 'application/json') as unknown
      const stream: unknown = await jsonArray(list, serialize as (batch: Task[]) => string)
      return reply.type('application/json; charset=utf-8').send(stream as Task[])
    }
  })

  app.post('', { schema: schemas.createTask }, async ({ user, body, headers }, reply) => {
    const key = headers['idempotency-key']
    const { task, replayed } =
      key === undefined
        ? { task: await tasks.create(user.sub, body), replayed: false }
        : await tasks.createOnce(user.sub, key, body)
    if (replayed) reply.header('Idempotency-Replayed', 'true')
    reply.code(201).header('Location', `/api/${encodeURIComponent(user.sub)}/tasks/${task.id}`)
    return withETag(reply, task)
  })

  app.get('/:taskId', { schema: schemas.getTask }, async ({ user, params, headers }, reply) => {
    const task = withETag(reply, await tasks.get(user.sub, params.taskId))
    return isNamed(headers['if-none-match'], task.version) ? reply.code(304).send() : task
  })

  app.patch('/:taskId', { schema: schemas.updateTask }, async ({ user, params, body, headers }, reply) =>
    withETag(reply, await tasks.update(user.sub, params.taskId, body, matchedVersions(headers['if-match'])))
  )

  app.put('/:taskId', { schema: schemas.putTask }, async ({ user, params, body, headers }, reply) =>
    withETag(reply, await tasks.update(user.sub, params.taskId, body, matchedVersions(headers['if-match'])))
  )

  app.delete('/:taskId', { schema: schemas.deleteTask }, async ({ user, params, headers }, reply) => {
    orNotFound(reply, await tasks.delete(user.sub, params.taskId, matchedVersions(headers['if-match'])))
    return reply.code(204).send(null)
  })

  app.patch('/:taskId/complete', {
    schema: schemas.toggleTaskCompletion,
    // No body means the same as an empty object. Where there is no body, axios sends null.
    preValidation: (request, _reply, done) => {
      request.body ??= {}
      done()
    },
    handler: async ({ user, params, body, headers }, reply) =>
      withETag(
        reply,
        await tasks.toggle(user.sub, params.taskId, body.completed, matchedVersions(headers['if-match']))
      )
  })
}

/** @throws TaskNotFound (404), or PreconditionFailed (412) with the current entity tag in the answer */
function orNotFound<T>(reply: FastifyReply, result: T | StaleVersion | undefined): T {
  if (result === undefined) throw new TaskNotFound()
  if (result instanceof StaleVersion) {
    reply.header('ETag', entityTag(result.version))
    throw new PreconditionFailed()
  }
  return result
}

/** Like `orNotFound`, and sets the task's entity tag. */
function withETag(reply: FastifyReply, result: VersionedTask | StaleVersion | undefined): VersionedTask {
  const task = orNotFound(reply, result)
  reply.header('ETag', entityTag(task.version))
  return task
}

export default routes
