import type { AddressInfo } from 'node:net'
import { sql } from 'drizzle-orm'
import { type Answer, clientOf, request, startApp } from '../support/api.js'
import { parseRaw, sendRaw } from '../support/raw.js'
import { JSON_TYPE, UNKNOWN_ID } from '../support/refusals.js'
import t from '../support/tap.js'

interface Response {
  content?: Record<string, { examples?: Record<string, { value: object }> }>
}
type Paths = Record<string, Record<string, { operationId: string; responses: Record<string, Response> }>>

/** A method that the operation's path does not have. */
const OTHER_METHODS: Record<string, string> = {
  '/api/{userId}/tasks': 'DELETE',
  '/api/{userId}/tasks/{taskId}': 'POST',
  '/api/{userId}/tasks/{taskId}/complete': 'GET'
}

/** A request that breaks the schema of each operation. */
const INVALID: Record<string, (send: Send) => Promise<Answer>> = {
  listTasks: (send) => send({ query: '?status=done' }),
  createTask: (send) => send({ body: { title: '' } }),
  updateTask: (send) => send({ body: { title: '' } }),
  putTask: (send) => send({ body: { title: '' } }),
  toggleTaskCompletion: (send) => send({ body: { completed: 'yes' } })
}

/** A valid request, except for the given parts. */
type Send = (wrong: {
  query?: string
  path?: string
  body?: unknown
  headers?: Record<string, string>
}) => Promise<Answer>

t.test('every example of an error is a real answer of the service', async (t) => {
  const app = await startApp(t)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const alice = await clientOf(app, 'alice')
  const paths = app.swagger().paths as Paths

  const operations = Object.entries(paths).flatMap(([template, item]) =>
    Object.entries(item).map(([method, operation]) => ({
      template,
      method: method.toUpperCase(),
      ...operation
    }))
  )
  // At the same time, because each takes ten seconds.
  const late = new Map(
    operations.map(({ operationId, method, template }) => [
      operationId,
      sendRaw('127.0.0.1', port, `${method} ${template} HTTP/1.1\r\nHost: x\r\n`)
    ])
  )

  for (const { operationId, template, method, responses } of operations) {
    t.test(operationId, async (t) => {
      const { id } = (await alice('POST', '', { title: 'Buy milk' })).json
      const below = (taskId: string) =>
        template.slice('/api/{userId}/tasks'.length).replace('{taskId}', taskId)
      const usual =
        ['PUT', 'POST'].includes(method) || operationId === 'updateTask' ? { title: 'a' } : undefined
      const send: Send = ({ query = '', path = below(id), body = usual, headers = {} }) =>
        alice(method, path + query, body, headers)
      const raw = async (rest: string) =>
        parseRaw(await sendRaw('127.0.0.1', port, `${method} ${template} HTTP/1.1\r\n${rest}`))
      const breaking = async (statement: string, again: string) => {
        await app.db.withAdminConnection((orm) => orm.execute(sql.raw(statement)))
        const answer = await send({})
        await app.db.withAdminConnection((orm) => orm.execute(sql.raw(again)))
        return answer
      }

      /** A request that causes each example, by status and name. */
      const provoke: Record<string, () => Promise<Answer>> = {
        '400 undecodable_path': () => alice(method, '/api/%zz/tasks'),
        '400 invalid_json': () => send({ body: '{', headers: JSON_TYPE }),
        '400 invalid_entity_tags': () => send({ headers: { 'if-match': '1', 'if-none-match': '1' } }),
        '400 invalid_http': () => raw('Host x\r\n\r\n'),
        '401 unauthorized': () => request(app, method, `/api/alice/tasks${below(id)}`),
        '403 forbidden': () => alice(method, `/api/bob/tasks${below(id)}`, usual),
        '404 not_found': () => send({ path: below(UNKNOWN_ID) }),
        '405 method_not_allowed': () => alice(OTHER_METHODS[template] as string, below(id)),
        '408 bad_request': async () => parseRaw((await late.get(operationId)) as string),
        '412 precondition_failed': () => send({ headers: { 'if-match': '"9"' } }),
        '413 body_too_large': () => send({ body: Buffer.alloc(65_537), headers: JSON_TYPE }),
        '415 unsupported_media_type': () => send({ body: 'a', headers: { 'content-type': 'text/plain' } }),
        '422 validation_failed': () => (INVALID[operationId] as (send: Send) => Promise<Answer>)(send),
        '422 idempotency_key_reused': async () => {
          const headers = { 'idempotency-key': 'one' }
          await send({ headers })
          return send({ body: { title: 'b' }, headers })
        },
        '431 bad_request': () => raw(`Host: x\r\nX-Large: ${'a'.repeat(20_000)}\r\n\r\n`),
        '500 internal': () =>
          breaking(
            `alter table tasks rename to elsewhere;
             create view tasks as select * from elsewhere where 1 / 0 = length(user_id) with check option`,
            'drop view tasks; alter table elsewhere rename to tasks'
          ),
        '503 unavailable': () =>
          breaking('alter table tasks rename to elsewhere', 'alter table elsewhere rename to tasks')
      }

      for (const [status, { content = {} }] of Object.entries(responses)) {
        if (Number(status) < 400) continue
        const examples = content['application/problem+json']?.examples ?? {}
        t.not(Object.keys(examples).length, 0, `${status} has an example`)
        for (const [name, { value }] of Object.entries(examples)) {
          const answer = await provoke[`${status} ${name}`]?.()
          t.strictSame([answer?.status, answer?.json], [Number(status), value], `${status} ${name}`)
        }
      }
    })
  }
})
