import { isDeepStrictEqual } from 'node:util'
import type { Task } from '../../db/schema.js'
import type { Answer } from '../support/api.js'
import { type Concrete, concrete, type Known, type User } from './concrete.js'
import type { Document, Operation, Validate } from './document.js'
import { type Draft, REQUEST_ID } from './drafts.js'
import { type Expected, expectedOf, type Fields, meaningOf, namesCurrent } from './faults.js'
import { bytesOf, show } from './sent.js'
import type { Wire } from './wire.js'

const PROBLEM_TYPE = 'application/problem+json; charset=utf-8'
const JSON_TYPE = 'application/json; charset=utf-8'
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** A wrong answer of a service. The message has the request and the answer. */
export class WrongAnswer extends Error {}

function must(holds: boolean, otherwise: string): void {
  if (!holds) throw new WrongAnswer(otherwise)
}

/**
 * One running service, and a model of its tasks. Every answer is compared with the document and the model, so wrongly
 * refused requests are found, and wrongly accepted ones too.
 */
export class World {
  /** Number of answers by operation and status. */
  readonly seen = new Map<string, number>()
  /** In the order of creation, which is the same in every world. */
  readonly #ids = new Map<string, string>()

  constructor(
    readonly wire: Wire,
    readonly users: User[],
    readonly document: Document,
    readonly validate: Validate
  ) {}

  /**
   * Sends a draft, and checks the answer.
   *
   * @returns the answer with placeholders for ids and timestamps, for comparison with another world
   * @throws WrongAnswer
   */
  async send(draft: Draft): Promise<object> {
    const request = concrete(draft, this.users)
    let answer: Answer | undefined
    try {
      answer = await this.wire.ask(bytesOf(request.sent), draft.method === 'HEAD')
      this.#check(draft, request, answer)
      return this.#comparable(answer)
    } catch (error) {
      const answered = answer ? `answered ${JSON.stringify(answer)}` : ''
      throw new WrongAnswer(`${(error as Error).message}\n${show(request.sent)}\n${answered}`)
    }
  }

  /**
   * Reads every list, and compares it with the model.
   *
   * @throws WrongAnswer
   */
  async compareLists(): Promise<void> {
    for (const { name, token, tasks } of this.users) {
      const target = `/api/${encodeURIComponent(name)}/tasks`
      const request = bytesOf({ method: 'GET', target, headers: [['Authorization', `Bearer ${token}`]] })
      const { json } = await this.wire.ask(request, false)
      const expected = tasks.map(({ task }) => task)
      const lists = () => `${JSON.stringify(json, null, 2)}\ninstead of ${JSON.stringify(expected, null, 2)}`
      if (!isDeepStrictEqual(json, expected)) throw new WrongAnswer(`the list of ${name} is ${lists()}`)
    }
  }

  #check(draft: Draft, request: Concrete, answer: Answer): void {
    const operation = this.#operationOf(draft)
    const expected = expectedOf(draft, request, operation, this.validate)
    const { faults } = expected
    const { status, headers } = answer
    const name = `${operation?.operationId ?? 'none'} ${status}`
    this.seen.set(name, (this.seen.get(name) ?? 0) + 1)

    must(status < 500, 'the service failed')
    const allowed = [...faults].join(', ') || 'a success'
    must(faults.size === 0 ? status < 400 : faults.has(status), `only ${allowed} may be answered`)
    if (operation) must(Object.hasOwn(operation.responses, status), 'a status that is not documented')
    const id = headers['x-request-id'] ?? ''
    must(UUID.test(id) || id === REQUEST_ID, 'no request id')
    if (status >= 400) {
      this.#checkProblem(answer, draft.method === 'HEAD')
    } else {
      this.#checkSuccess(operation as Operation, answer, draft.method === 'HEAD')
      this.#apply(draft, operation as Operation, request, expected, answer)
    }
  }

  #checkProblem({ status, headers, text, json }: Answer, isHead: boolean): void {
    must(headers['content-type'] === PROBLEM_TYPE, 'an error of another content type')
    if (isHead) {
      must(text === '', 'a body for HEAD')
      return
    }
    const wrong = this.validate({ $ref: '#/components/schemas/Problem' }, json)
    must(wrong === '', `the error breaks its schema: ${wrong}`)
    must(json.status === status, 'the error tells another status')
  }

  #checkSuccess({ responses }: Operation, { status, headers, text, json }: Answer, isHead: boolean): void {
    const { content, headers: documented = {} } = responses[status] as Operation['responses'][string]
    for (const name of Object.keys(documented)) {
      must(name === 'Idempotency-Replayed' || headers[name.toLowerCase()] !== undefined, `no ${name}`)
    }
    const schema = content?.['application/json']?.schema
    if (schema === undefined || isHead) must(text === '', 'a body where none is documented')
    if (schema === undefined) return
    must(headers['content-type'] === JSON_TYPE, 'a success of another content type')
    if (isHead) return
    const wrong = this.validate(schema, json)
    must(wrong === '', `the body breaks its schema: ${wrong}`)
  }

  #operationOf({ path, method }: Draft): Operation | undefined {
    const methods = 'template' in path ? this.document.paths[path.template] : undefined
    return methods?.[method.toLowerCase()] ?? (method === 'HEAD' ? methods?.get : undefined)
  }

  /** Applies a success to the model, and checks that it is the requested change. */
  #apply(draft: Draft, { operationId }: Operation, request: Concrete, expected: Expected, answer: Answer) {
    const { user } = request
    // If there is no such task, a success is wrong, and was reported already.
    const known = request.known as Known
    const { headers, json } = answer
    switch (operationId) {
      case 'listTasks':
        if (draft.method === 'GET') this.#listed(draft, user, json)
        return
      case 'getTask':
        this.#got(draft, known, answer)
        return
      case 'createTask':
        if (expected.replayed) this.#replayed(expected.replayed, answer)
        else this.#created(draft, user, expected.body, answer)
        return
      case 'deleteTask':
        user.tasks.splice(user.tasks.indexOf(known), 1)
        return
      case 'toggleTaskCompletion':
        this.#changed(known, { completed: expected.body.completed ?? !known.task.completed }, headers, json)
        return
      default:
        this.#changed(known, expected.body, headers, json)
    }
  }

  #listed({ query }: Draft, { tasks }: User, json: Task[]): void {
    const wanted = query.find(([name]) => name === 'status')?.[1] || 'all'
    const expected = tasks
      .map(({ task }) => task)
      .filter(({ completed }) => wanted === 'all' || completed === (wanted === 'completed'))
    must(isDeepStrictEqual(json, expected), 'another list')
  }

  #got({ method, condition }: Draft, { task, version }: Known, { status, headers, json }: Answer): void {
    const value = condition?.header === 'If-None-Match' ? condition.value : []
    const named = value === '*' || (Array.isArray(value) && value.some(namesCurrent))
    must(status === (named ? 304 : 200), `${named ? 304 : 200} was due`)
    must(headers.etag === `"${version}"`, 'another version')
    if (!named && method === 'GET') must(isDeepStrictEqual(json, task), 'another task')
  }

  #replayed({ task, version }: Known, { headers, json }: Answer): void {
    must(headers['idempotency-replayed'] === 'true', 'not replayed')
    must(isDeepStrictEqual(json, task), 'another task')
    must(headers.etag === `"${version}"`, 'another version')
  }

  #created({ key }: Draft, user: User, body: Fields, { headers, json }: Answer): void {
    const { title, description = null, completed = false } = body
    const { id, created_at } = json as Task
    must(!this.#ids.has(id) && id > (user.tasks[0]?.task.id ?? ''), 'an id that is not new')
    this.#ids.set(id, `task-${this.#ids.size}`)
    const task = {
      ...{ id, user_id: user.name, title, description, completed },
      ...{ completed_at: completed ? created_at : null, created_at, updated_at: created_at }
    }
    must(isDeepStrictEqual(json, task), 'not what was sent')
    must(headers['idempotency-replayed'] === undefined, 'replayed')
    must(headers.etag === '"1"', 'not the first version')
    must(headers.location === `/api/${encodeURIComponent(user.name)}/tasks/${id}`, 'another location')
    user.tasks.unshift({ task: json, version: 1, key, meaning: meaningOf(body) })
  }

  #changed(known: Known, changes: Fields, headers: Answer['headers'], json: Task): void {
    const { task } = known
    const { title = task.title, description = task.description, completed = task.completed } = changes
    const { updated_at } = json
    const completed_at = completed ? (task.completed_at ?? updated_at) : null
    const expected = { ...task, title, description, completed, completed_at, updated_at }
    must(isDeepStrictEqual(json, expected), 'not what was sent')
    must(updated_at > task.updated_at, 'updated_at does not grow')
    known.version++
    must(headers.etag === `"${known.version}"`, 'not the next version')
    known.task = json
  }

  #comparable({ status, headers, text }: Answer): object {
    const same = (value: string | undefined) =>
      value
        ?.replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (id) => this.#ids.get(id) ?? id)
        .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, 'instant')
    const { date, 'x-request-id': _id, 'content-length': _length, ...others } = headers
    return {
      status,
      headers: Object.fromEntries(Object.entries(others).map(([name, value]) => [name, same(value)])),
      text: same(text)
    }
  }
}
