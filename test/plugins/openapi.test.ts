import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import Ajv from 'ajv'
import Ajv2020 from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { STATUS_OF } from '../../plugins/errors/catalogue.js'
import { startApp } from '../support/api.js'
import { ROOT } from '../support/root.js'
import t from '../support/tap.js'

interface Parameter {
  name: string
  in: string
  description?: string
  required?: boolean
  schema: object
}
interface Answer {
  description: string
  headers?: Record<string, { description?: string; schema?: object }>
  content?: Record<string, { schema: object; examples?: object }>
}
interface Operation {
  operationId: string
  summary: string
  description: string
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

interface Schema {
  $ref?: string
  description?: string
  properties?: Record<string, Schema>
  items?: Schema
}

/** The JSON pointers to every outermost schema in the document. */
function schemasIn(value: unknown, pointer = ''): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, member]) => {
    const below = `${pointer}/${encodeURIComponent(name.replaceAll('~', '~0').replaceAll('/', '~1'))}`
    if (name === 'schema') return [below]
    if (pointer === '/components/schemas') return [below]
    return schemasIn(member, below)
  })
}

const USER = '/api/{userId}/tasks'
const TASK = `${USER}/{taskId}`
const EVERYWHERE = [400, 401, 403, 405, 408, 431, 500, 503]
const BODY = [413, 415]
const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` })

/** Each operation: its id, its success with the schema, its body, and its other statuses. */
const OPERATIONS = [
  [
    'get',
    USER,
    'listTasks',
    200,
    { description: 'Tasks, newest first.', type: 'array', items: ref('Task') },
    undefined,
    [422]
  ],
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

/** The query parameters and headers of each operation. */
const PARAMETERS = {
  listTasks: ['status'],
  createTask: ['Idempotency-Key'],
  getTask: ['If-None-Match'],
  updateTask: ['If-Match'],
  putTask: ['If-Match'],
  deleteTask: ['If-Match'],
  toggleTaskCompletion: ['If-Match']
}

t.test('the OpenAPI document', async (t) => {
  const app = await startApp(t)
  const document = JSON.parse(JSON.stringify(app.swagger())) as Document
  const operations = Object.values(document.paths).flatMap((item) => Object.values(item))

  t.test('is OpenAPI 3.1 with a title, a version and a description', async (t) => {
    t.match(document, {
      openapi: /^3\.1\.\d+$/,
      info: {
        title: 'Tasks API',
        version: JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version
      },
      security: [{ bearer: [] }],
      components: {
        securitySchemes: {
          bearer: {
            type: 'http',
            scheme: 'bearer',
            bearerFormat: 'JWT',
            description: /without the word Bearer.*`npm run -s token -- alice`/
          }
        }
      }
    })
  })

  t.test('has exactly the operations of the service', async (t) => {
    const documented = Object.entries(document.paths).flatMap(([path, item]) =>
      Object.entries(item).map(([method, { operationId }]) => [method, path, operationId].join(' '))
    )
    t.strictSame(
      documented.sort(),
      OPERATIONS.map(([method, path, id]) => [method, path, id].join(' ')).sort()
    )
  })

  for (const [method, path, operationId, success, answer, body, others] of OPERATIONS) {
    t.test(`${operationId}: has the body, and every answer`, async (t) => {
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
        const schemas = Object.entries(content ?? {}).map(([type, { schema }]) => [type, { schema }])
        t.strictSame(
          content && Object.fromEntries(schemas),
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
          405: ['Allow'],
          412: ['ETag'],
          503: ['Retry-After']
        }[status]
        t.strictSame(headers && Object.keys(headers), named, `${status} has its headers`)
        for (const header of Object.values(headers ?? {})) t.ok(header.schema)
      }
    })
  }

  t.test('names its schemas, and every reference is valid', async (t) => {
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

  t.test('describes the fields of requests and answers', async (t) => {
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

  t.test('describes a field as its operation uses it', async (t) => {
    const { CreateTask, UpdateTask } = document.components.schemas
    t.match(CreateTask, { properties: { completed: { description: 'Defaults to false.' } } })
    t.match(UpdateTask, { properties: { completed: { description: 'Does not change if left out.' } } })
    for (const { parameters = [] } of operations) {
      const userId = parameters.find(({ name }) => name === 'userId')
      t.equal(userId?.description, 'The `sub` of the token.', 'encoding it is the work of the client')
    }
    const list = document.paths[USER]?.get?.responses[400]?.description
    t.notMatch(list, /If-Match/, 'which a list does not read')
  })

  t.test('describes every operation, parameter, header, schema and property', async (t) => {
    for (const { operationId, description, parameters = [], responses } of operations) {
      t.ok(description, operationId)
      for (const { name, description } of parameters) t.ok(description, `${operationId} ${name}`)
      for (const [status, { headers = {} }] of Object.entries(responses)) {
        for (const [name, { description }] of Object.entries(headers))
          t.ok(description, `${operationId} ${status} ${name}`)
      }
    }
    const count = { schemas: 0 }
    const visit = (schema: Schema, where: string) => {
      count.schemas++
      t.ok(schema.description ?? schema.$ref, where)
      for (const [name, property] of Object.entries(schema.properties ?? {}))
        visit(property, `${where}/${name}`)
      if (schema.items) visit(schema.items, `${where}/items`)
    }
    for (const [name, schema] of Object.entries(document.components.schemas)) visit(schema as Schema, name)
    const inline = operations.flatMap(({ operationId, responses }) =>
      Object.values(responses).flatMap(({ content = {} }) =>
        Object.values(content).map(({ schema }) => [schema as Schema, operationId] as const)
      )
    )
    for (const [schema, where] of inline) visit(schema, where)
    t.ok(count.schemas > 30, `${count.schemas} schemas`)
  })

  t.test('has plain text in titles and summaries', async (t) => {
    for (const { summary } of operations) t.notMatch(summary, /`/)
  })

  t.test('has examples for required values, and none for optional headers', async (t) => {
    const { Task, CreateTask, UpdateTask } = document.components.schemas
    const [task] = Task?.examples as Record<string, unknown>[]
    t.strictSame(Object.keys(task as object), Task?.required)
    for (const schema of [Task, CreateTask, UpdateTask])
      t.match(schema, { properties: { title: { examples: ['Buy milk'] } } })
    for (const { parameters = [] } of operations) {
      for (const parameter of parameters) {
        const example = { userId: task?.user_id, taskId: task?.id }[parameter.name]
        t.strictSame(
          [parameter.name, 'example' in parameter && parameter.example, 'examples' in parameter],
          [parameter.name, example ?? false, false]
        )
        t.notOk('examples' in parameter.schema || 'example' in parameter.schema)
      }
    }
  })

  for (const [name, make] of [
    ['a default Ajv', () => new Ajv.default()],
    ['a default Ajv of JSON Schema 2020-12, as OpenAPI 3.1 has it', () => new Ajv2020.default()]
  ] as const) {
    t.test(`${name} with the standard formats compiles every schema`, async (t) => {
      const warnings: unknown[] = []
      const warn = (...parts: unknown[]) => void warnings.push(parts)
      const ajv = make()
      ajv.logger = { log: warn, warn, error: warn }
      addFormats.default(ajv)
      // A keyword of OpenAPI for a whole document. With it, references are resolved.
      ajv.addVocabulary(Object.keys(document))
      ajv.addSchema(document, 'document')
      const pointers = schemasIn(document)
      t.ok(pointers.length > 50, `${pointers.length} schemas`)
      for (const pointer of pointers) {
        t.doesNotThrow(() => ajv.compile({ $ref: `document#${pointer}` }), pointer)
      }
      t.strictSame(warnings, [])
    })
  }

  t.test('a default Ajv without any formats compiles the schemas of bodies', async (t) => {
    for (const name of ['CreateTask', 'UpdateTask', 'SetCompletion']) {
      t.doesNotThrow(() => new Ajv.default().compile(document.components.schemas[name] as object), name)
    }
    t.equal(document.components.schemas.UpdateTask?.minProperties, 1)
  })

  t.test('marks an optional body as not required', async (t) => {
    t.notOk(document.paths[`${TASK}/complete`]?.patch?.requestBody?.required)
    t.ok(document.paths[USER]?.post?.requestBody?.required, 'but where it is')
  })

  t.test('equals the committed openapi.json', async (t) => {
    const committed = readFileSync(join(ROOT, 'openapi.json'), 'utf8')
    t.strictSame(JSON.parse(committed), document, 'npm run openapi writes it')
  })
})
