import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { STATUS_OF } from '../../plugins/errors/catalogue.js'
import { startApp } from '../support/api.js'
import { ROOT } from '../support/root.js'

interface Parameter {
  name: string
  in: string
  required?: boolean
  schema: object
}
interface Answer {
  description: string
  headers?: Record<string, { schema?: object }>
  content?: Record<string, { schema: object }>
}
interface Operation {
  operationId: string
  summary: string
  tags: string[]
  security?: object[]
  parameters?: Parameter[]
  requestBody?: { required?: boolean; content: Record<string, { schema: object }> }
  responses: Record<string, Answer>
}
interface Document {
  openapi: string
  info: { title: string; version: string }
  security: object[]
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Record<string, unknown>>; securitySchemes: Record<string, object> }
}

const USER = '/api/{userId}/tasks'
const TASK = `${USER}/{taskId}`
const EVERYWHERE = [400, 401, 403, 500, 503]
const BODY = [413, 415]
const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` })

/** What the service promises: the id, the success with its schema, the body, and every other status. */
const OPERATIONS = [
  ['get', USER, 'listTasks', 200, { type: 'array', items: ref('Task') }, undefined, [422]],
  ['post', USER, 'createTask', 201, ref('Task'), ref('CreateTask'), [...BODY, 422]],
  ['get', TASK, 'getTask', 200, ref('Task'), undefined, [304, 404]],
  ['patch', TASK, 'updateTask', 200, ref('Task'), ref('UpdateTask'), [404, 412, ...BODY, 422]],
  ['put', TASK, 'putTask', 200, ref('Task'), ref('UpdateTask'), [404, 412, ...BODY, 422]],
  ['delete', TASK, 'deleteTask', 204, undefined, undefined, [404, 412, ...BODY]],
  [
    'patch',
    `${TASK}/complete`,
    'toggleTaskCompletion',
    200,
    ref('Task'),
    ref('SetCompletion'),
    [404, 412, ...BODY, 422]
  ]
] as const

/** What can be sent besides the path and the body. */
const PARAMETERS = {
  listTasks: ['status'],
  createTask: ['idempotency-key'],
  getTask: ['if-none-match'],
  updateTask: ['if-match'],
  putTask: ['if-match'],
  deleteTask: ['if-match'],
  toggleTaskCompletion: ['if-match']
}

t.test('the OpenAPI document', async (t) => {
  const app = await startApp(t)
  const document = JSON.parse(JSON.stringify(app.swagger())) as Document

  t.test('is OpenAPI 3.1 with what a reader has to know first', async (t) => {
    t.match(document, {
      openapi: /^3\.1\.\d+$/,
      info: { title: 'Tasks API', version: /^\d+\.\d+\.\d+$/ },
      security: [{ bearer: [] }],
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } } }
    })
  })

  t.test('has the operations of the service, and no others', async (t) => {
    const documented = Object.entries(document.paths).flatMap(([path, item]) =>
      Object.entries(item).map(([method, { operationId }]) => [method, path, operationId].join(' '))
    )
    t.strictSame(
      documented.sort(),
      OPERATIONS.map(([method, path, id]) => [method, path, id].join(' ')).sort()
    )
  })

  for (const [method, path, operationId, success, answer, body, others] of OPERATIONS) {
    t.test(`${operationId}: says what to send and every answer there is`, async (t) => {
      const operation = document.paths[path]?.[method] as Operation
      t.ok(operation.summary)
      t.strictSame(operation.tags, ['tasks'])
      t.equal((operation.security ?? document.security).length, 1, 'needs a token')

      const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)
      const parameters = operation.parameters ?? []
      t.strictSame(
        parameters.filter((one) => one.in === 'path').map(({ name }) => name),
        inPath
      )
      for (const { in: where, required, schema } of parameters) {
        t.equal(required ?? false, where === 'path')
        t.ok('type' in schema)
      }
      t.strictSame(
        parameters.filter((one) => one.in !== 'path').map(({ name }) => name),
        PARAMETERS[operationId]
      )

      t.strictSame(operation.requestBody?.content, body && { 'application/json': { schema: body } })

      t.strictSame(
        Object.keys(operation.responses).map(Number).sort(),
        [success, ...EVERYWHERE, ...others].sort()
      )
      for (const [status, { description, content, headers }] of Object.entries(operation.responses)) {
        t.ok(description, `${status} is described`)
        t.strictSame(
          content,
          Number(status) === success
            ? answer && { 'application/json': { schema: answer } }
            : status === '304'
              ? undefined
              : { 'application/problem+json': { schema: ref('Problem') } },
          status
        )
        const named = {
          200: operationId === 'listTasks' ? undefined : ['ETag'],
          201: ['ETag', 'Idempotency-Replayed', 'Location'],
          304: ['ETag'],
          401: ['WWW-Authenticate'],
          412: ['ETag'],
          503: ['Retry-After']
        }[status]
        t.strictSame(headers && Object.keys(headers), named, `${status} has its headers`)
        for (const header of Object.values(headers ?? {})) t.ok(header.schema)
      }
    })
  }

  t.test('names its schemas, and every reference leads to one', async (t) => {
    const { schemas } = document.components
    t.strictSame(Object.keys(schemas).sort(), [
      'CreateTask',
      'Problem',
      'SetCompletion',
      'Task',
      'UpdateTask'
    ])
    const text = JSON.stringify(document)
    const refs = [...text.matchAll(/"\$ref":"([^"]+)"/g)].map(([, to]) => to as string)
    t.ok(refs.length > 0)
    for (const to of new Set(refs)) {
      t.ok(Object.hasOwn(schemas, to.replace('#/components/schemas/', '')), to)
    }
    t.notMatch(text, /def-\d/)
    t.notMatch(text, /"\$id"/)
    t.notMatch(text, /"nullable"/, 'OpenAPI 3.0 said it so')
  })

  t.test('describes what is sent and what comes back', async (t) => {
    const { Task, CreateTask, UpdateTask, SetCompletion, Problem } = document.components.schemas
    const fields = [
      'id',
      'user_id',
      'title',
      'description',
      'completed',
      'completed_at',
      'created_at',
      'updated_at'
    ]
    t.strictSame(Object.keys(Task?.properties as object), fields)
    t.strictSame(Task?.required, fields)
    t.match(CreateTask, {
      required: ['title'],
      properties: {
        title: { type: 'string', minLength: 1, maxLength: 200 },
        description: { type: ['string', 'null'], maxLength: 10_000 },
        completed: { type: 'boolean' }
      }
    })
    t.strictSame(Object.keys(UpdateTask?.properties as object), ['title', 'description', 'completed'])
    t.strictSame([UpdateTask?.required, UpdateTask?.minProperties], [undefined, 1])
    t.strictSame(
      [SetCompletion?.required, Object.keys(SetCompletion?.properties as object)],
      [undefined, ['completed']]
    )
    t.strictSame(Problem?.required, ['type', 'title', 'status', 'detail', 'code'])
    t.match(Problem, { properties: { code: { enum: Object.keys(STATUS_OF) } } })
  })

  t.test('does not demand a body where none is needed', async (t) => {
    t.notOk(document.paths[`${TASK}/complete`]?.patch?.requestBody?.required)
    t.ok(document.paths[USER]?.post?.requestBody?.required, 'but where it is')
  })

  t.test('is the committed openapi.json', async (t) => {
    const committed = readFileSync(join(ROOT, 'openapi.json'), 'utf8')
    t.strictSame(JSON.parse(committed), document, 'npm run openapi writes it')
  })
})
