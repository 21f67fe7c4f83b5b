import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { taskRepository } from '../../db/tasks.js'
import { TaskNotFound } from '../../src/errors.js'
import * as schemas from './schemas.js'

const COMPLETED = { all: undefined, pending: false, completed: true }

/** The six operations on the tasks of the path's user, who must be the token's. Registered below `/api/:userId/tasks`. */
const routes: FastifyPluginAsyncTypebox = async (app) => {
  const tasks = taskRepository(app.db)

  for (const schema of [schemas.Task, schemas.CreateTask, schemas.UpdateTask, schemas.SetCompletion]) {
    app.addSchema(schema)
  }
  app.addHook('preHandler', app.requireOwner)

  // The handlers pass on the token's user, never the path's.

  app.get('', { schema: schemas.listTasks }, ({ user, query }) =>
    tasks.list(user.sub, COMPLETED[query.status ?? 'all'])
  )

  app.post('', { schema: schemas.createTask }, async ({ user, body }, reply) => {
    const task = await tasks.create(user.sub, body)
    reply.code(201).header('Location', `/api/${encodeURIComponent(user.sub)}/tasks/${task.id}`)
    return task
  })

  app.get('/:taskId', { schema: schemas.getTask }, async ({ user, params }) =>
    found(await tasks.get(user.sub, params.taskId))
  )

  app.patch('/:taskId', { schema: schemas.updateTask }, async ({ user, params, body }) =>
    found(await tasks.update(user.sub, params.taskId, body))
  )

  app.put('/:taskId', { schema: schemas.putTask }, async ({ user, params, body }) =>
    found(await tasks.update(user.sub, params.taskId, body))
  )

  app.delete('/:taskId', { schema: schemas.deleteTask }, async ({ user, params }, reply) => {
    if (!(await tasks.delete(user.sub, params.taskId))) throw new TaskNotFound()
    return reply.code(204).send(null)
  })

  app.patch('/:taskId/complete', {
    schema: schemas.toggleTaskCompletion,
    // No body at all flips, as an empty object does; the JSON value null is neither.
    preValidation: (request, _reply, done) => {
      if ((request.body as unknown) === undefined) request.body = {}
      done()
    },
    handler: async ({ user, params, body }) =>
      found(await tasks.toggle(user.sub, params.taskId, body.completed))
  })
}

/** @throws TaskNotFound (404) */
function found<T>(task: T | undefined): T {
  if (task === undefined) throw new TaskNotFound()
  return task
}

export default routes
