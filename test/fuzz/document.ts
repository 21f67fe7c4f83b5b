import Ajv2020 from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import type { FastifyInstance } from 'fastify'

/** The keywords of JSON Schema that the document uses. */
export interface Schema {
  $ref?: string
  type?: string | string[]
  enum?: string[]
  minLength?: number
  maxLength?: number
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
}

export interface Parameter {
  name: string
  in: 'path' | 'query' | 'header'
  schema: Schema
}

export interface Response {
  headers?: Record<string, object>
  content?: Record<string, { schema: Schema }>
}

export interface Operation {
  operationId: string
  parameters?: Parameter[]
  requestBody?: { required?: boolean; content: Record<string, { schema: Schema }> }
  responses: Record<string, Response>
}

export interface Document {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema> }
}

/** The OpenAPI document of a service. Rules that it has only in words are added as keywords of our own. */
export function documentOf(app: FastifyInstance): Document {
  const document = JSON.parse(JSON.stringify(app.swagger())) as Document
  const { CreateTask, UpdateTask } = document.components.schemas
  for (const { properties = {} } of [CreateTask, UpdateTask] as Schema[]) {
    for (const name of ['title', 'description']) Object.assign(properties[name] as Schema, { storable: true })
  }
  Object.assign(UpdateTask as Schema, { atLeastOneOf: ['title', 'description', 'completed'] })
  return document
}

/**
 * Validates a value with a schema of the document. This Ajv is configured independently of the service's own, so that
 * a wrong option there is found.
 */
export function validatorOf(document: Document) {
  const ajv = new Ajv2020.default({ strict: false })
  addFormats.default(ajv)
  ajv.addKeyword({
    keyword: 'storable',
    type: 'string',
    validate: (_: boolean, text: string) => !/\0/.test(text) && text === text.toWellFormed()
  })
  ajv.addKeyword({
    keyword: 'atLeastOneOf',
    type: 'object',
    validate: (names: string[], value: object) => Object.keys(value).some((name) => names.includes(name))
  })
  ajv.addSchema(document, 'document')
  const compiled = new Map<Schema, ReturnType<typeof ajv.compile>>()
  /** All errors in one text; '' if there are none. */
  return (schema: Schema, value: unknown): string => {
    let validate = compiled.get(schema)
    if (validate === undefined) {
      validate = ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"document#/')))
      compiled.set(schema, validate)
    }
    return validate(value) ? '' : ajv.errorsText(validate.errors)
  }
}

export type Validate = ReturnType<typeof validatorOf>

/** Resolves a schema's reference, if it is one. */
export const resolve = ({ components }: Document, schema: Schema): Schema =>
  schema.$ref ? (components.schemas[schema.$ref.replace('#/components/schemas/', '')] as Schema) : schema
