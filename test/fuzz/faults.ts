import { isUtf8 } from 'node:buffer'
import type { Task } from '../../db/schema.js'
import type { Concrete, Known } from './concrete.js'
import type { Operation, Parameter, Validate } from './document.js'
import type { Draft, TagRef } from './drafts.js'

export type Fields = Partial<Pick<Task, 'title' | 'description' | 'completed'>>

const MAX_BODY_BYTES = 65_536

/** The expected result of a request. */
export interface Expected {
  /** The allowed error statuses. If there are none, the request must succeed. */
  faults: Set<number>
  /** The body as the service must read it. */
  body: Fields
  /** The task of an earlier create with the same key. */
  replayed: Known | undefined
}

/** The result that the document and the contract require, computed without the service's code. */
export function expectedOf(
  draft: Draft,
  { user, known }: Concrete,
  operation: Operation | undefined,
  validate: Validate
): Expected {
  const expected: Expected = { faults: new Set(), body: {}, replayed: undefined }
  const { faults } = expected
  const only = (status: number) => {
    faults.add(status)
    return expected
  }
  // An unauthenticated client gets no other error.
  if (draft.caller !== 'owner' && draft.caller !== 'stranger') return only(401)
  if ('text' in draft.path) return only(draft.path.undecodable ? 400 : 404)
  if (operation === undefined) return only(405)

  if (draft.caller === 'stranger') faults.add(403)
  if (draft.path.template.includes('{taskId}') && known === undefined) faults.add(404)
  const parameters = operation.parameters ?? []
  for (const { name, schema } of parameters.filter((one) => one.in === 'query')) {
    const values = draft.query.filter(([one]) => one === name).map(([, value]) => value)
    if (values.length > 1 || values.some((value) => value !== '' && validate(schema, value) !== ''))
      faults.add(422)
  }
  if (draft.method !== 'GET' && draft.method !== 'HEAD') {
    expected.body = readBody(draft, operation, validate, faults) as Fields
  }
  const field = (name: string) => parameters.find((one) => one.in === 'header' && one.name === name)
  checkCondition(draft.condition, field, known, faults)
  checkKey(draft.key, field('Idempotency-Key'), user.tasks, validate, expected)
  return expected
}

/** Adds the errors of a body. */
function readBody(
  { body, noise }: Draft,
  { operationId, requestBody }: Operation,
  validate: Validate,
  faults: Set<number>
): unknown {
  const schema = requestBody?.content['application/json']?.schema
  if (body === undefined || body.bytes.length === 0) {
    if (requestBody?.required) faults.add(422)
    return {}
  }
  if (body.bytes.length > MAX_BODY_BYTES) faults.add(413)
  if (noise.some(([name, value]) => name === 'Content-Encoding' && value !== 'identity')) faults.add(415)
  if (!/^application\/json(;|$)/i.test(body.type ?? '')) faults.add(415)
  if (!isUtf8(body.bytes)) faults.add(400)
  let value: unknown
  try {
    value = JSON.parse(body.bytes.toString().replace(/^\ufeff/, ''))
  } catch {
    faults.add(400)
  }
  if (value === null && operationId === 'toggleTaskCompletion') return {}
  if (schema && value !== undefined && validate(schema, value) !== '') faults.add(422)
  return value
}

/** True if a tag has the task's version, in any form. */
export const namesCurrent = (tag: TagRef): boolean => tag.endsWith('current')

function checkCondition(
  condition: Draft['condition'],
  field: (name: string) => Parameter | undefined,
  known: Known | undefined,
  faults: Set<number>
): void {
  if (condition === undefined || !field(condition.header)) return
  const { header, value } = condition
  if (value === '*') return
  if (!Array.isArray(value)) faults.add(400)
  else if (header === 'If-Match' && known && !value.some(namesCurrent)) faults.add(412)
}

function checkKey(
  key: string | undefined,
  parameter: Parameter | undefined,
  tasks: Known[],
  validate: Validate,
  expected: Expected
): void {
  if (key === undefined || parameter === undefined) return
  if (validate(parameter.schema, key) !== '') expected.faults.add(422)
  const first = tasks.find((one) => one.key === key)
  // An invalid request does not use its key.
  if (first === undefined || expected.faults.size > 0) return
  if (first.meaning === meaningOf(expected.body)) expected.replayed = first
  else expected.faults.add(422)
}

/** Two creates with one key must have equal values. */
export const meaningOf = ({ title, description = null, completed = false }: Fields): string =>
  JSON.stringify([title, description, completed])
