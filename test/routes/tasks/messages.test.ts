import {
  CreateTask,
  IdempotencyKey,
  ListQuery,
  SetCompletion,
  UpdateTask
} from '../../../routes/tasks/schemas.js'
import { clientOf, expectProblem, startApp } from '../../support/api.js'
import { JSON_TYPE } from '../../support/refusals.js'
import t from '../../support/tap.js'

const OBJECT = 'The body must be a JSON object'
const NO_TITLE = 'title must not be empty'
const LONG_TITLE = 'title must be at most 200 characters'
const BLANK_TITLE = 'title must not be blank'
const TITLE_TYPE = 'title must be text'
const TITLE_TEXT = 'title must not contain NUL characters or lone surrogates'
const DESCRIPTION_TYPE = 'description must be text or null'
const LONG_DESCRIPTION = 'description must be at most 10,000 characters'
const DESCRIPTION_TEXT = 'description must not contain NUL characters or lone surrogates'
const COMPLETED = 'completed must be true or false'
const NONE = 'At least one of title, description, and completed is required'
const STATUS = 'status must be all, pending, or completed'
const KEY = 'Idempotency-Key must be visible ASCII characters without spaces'

/** Every rule of every schema that a request can break: its path, its keyword, an invalid value, and the message. */
const BODIES = {
  CreateTask: [
    ['', 'type', [], OBJECT],
    ['/title', 'required', {}, 'title is required'],
    ['/title', 'type', { title: 1 }, TITLE_TYPE],
    ['/title', 'minLength', { title: '' }, NO_TITLE],
    ['/title', 'maxLength', { title: 'a'.repeat(201) }, LONG_TITLE],
    ['/title', 'pattern', { title: ' \u3000' }, BLANK_TITLE],
    ['/title', 'format', { title: 'a\0' }, TITLE_TEXT],
    ['/description', 'type', { title: 'a', description: 1 }, DESCRIPTION_TYPE],
    ['/description', 'maxLength', { title: 'a', description: 'a'.repeat(10_001) }, LONG_DESCRIPTION],
    ['/description', 'format', { title: 'a', description: '\ud800' }, DESCRIPTION_TEXT],
    ['/completed', 'type', { title: 'a', completed: null }, COMPLETED]
  ],
  UpdateTask: [
    ['', 'type', [], OBJECT],
    ['', 'minProperties', {}, NONE],
    ['', 'x-at-least-one-of', { priority: 1 }, NONE],
    ['/title', 'type', { title: null }, TITLE_TYPE],
    ['/title', 'minLength', { title: '' }, NO_TITLE],
    ['/title', 'maxLength', { title: 'a'.repeat(201) }, LONG_TITLE],
    ['/title', 'pattern', { title: '\n' }, BLANK_TITLE],
    ['/title', 'format', { title: 'a\0' }, TITLE_TEXT],
    ['/description', 'type', { description: {} }, DESCRIPTION_TYPE],
    ['/description', 'maxLength', { description: 'a'.repeat(10_001) }, LONG_DESCRIPTION],
    ['/description', 'format', { description: '\0' }, DESCRIPTION_TEXT],
    ['/completed', 'type', { completed: 'true' }, COMPLETED]
  ],
  SetCompletion: [
    ['', 'type', 'true', OBJECT],
    ['/completed', 'type', { completed: 1 }, COMPLETED]
  ]
} satisfies Record<string, [path: string, keyword: string, body: unknown, message: string][]>

const QUERIES: [path: string, keyword: string, query: string, message: string][] = [
  ['/status', 'enum', '?status=done', STATUS],
  ['/status', 'type', '?status=all&status=pending', STATUS]
]

const HEADERS: [path: string, keyword: string, value: string, message: string][] = [
  ['/idempotency-key', 'minLength', '', 'Idempotency-Key must not be empty'],
  ['/idempotency-key', 'maxLength', 'a'.repeat(256), 'Idempotency-Key must be at most 255 characters'],
  ['/idempotency-key', 'pattern', 'a b', KEY]
]

/** Keywords that cannot fail. */
const ANNOTATIONS = ['$id', 'description', 'examples', 'properties']

/** Every rule of a flat schema, in the form of the tables. */
function rulesOf({ properties = {}, required = [], ...schema }: Record<string, unknown>): string[] {
  const own = (path: string, keywords: object) =>
    Object.keys(keywords)
      .filter((keyword) => !ANNOTATIONS.includes(keyword))
      .map((keyword) => `${path} ${keyword}`)
  return [
    ...own('', schema),
    ...(required as string[]).map((name) => `/${name} required`),
    // Errors have headers in lower case.
    ...Object.entries(properties as object).flatMap(([name, property]) =>
      own(`/${name.toLowerCase()}`, property)
    )
  ].sort()
}

const inTable = (rules: [path: string, keyword: string, ...unknown[]][]) =>
  rules.map(([path, keyword]) => `${path} ${keyword}`).sort()

t.test('every rule of every schema has a message', async (t) => {
  t.strictSame(inTable(BODIES.CreateTask), rulesOf(CreateTask))
  t.strictSame(inTable(BODIES.UpdateTask), rulesOf(UpdateTask))
  t.strictSame(inTable(BODIES.SetCompletion), rulesOf(SetCompletion))
  // A query and headers are always objects, and each header is text.
  t.strictSame([' type', ...inTable(QUERIES)], rulesOf(ListQuery))
  t.strictSame([' type', ...inTable(HEADERS), '/idempotency-key type'], rulesOf(IdempotencyKey))
})

t.test('every broken rule returns its path and message', async (t) => {
  const app = await startApp(t)
  const alice = await clientOf(app, 'alice')
  const { id } = (await alice('POST', '', { title: 'a' })).json
  const bodies = (name: keyof typeof BODIES, method: string, path: string) =>
    BODIES[name].map(
      ([pointer, keyword, body, message]) =>
        [
          `${method} ${keyword}`,
          pointer,
          message,
          () => alice(method, path, JSON.stringify(body), JSON_TYPE)
        ] as const
    )
  for (const [title, path, message, send] of [
    ...bodies('CreateTask', 'POST', ''),
    ...bodies('UpdateTask', 'PATCH', `/${id}`),
    ...bodies('UpdateTask', 'PUT', `/${id}`),
    ...bodies('SetCompletion', 'PATCH', `/${id}/complete`),
    ...QUERIES.map(
      ([path, keyword, query, message]) => [keyword, path, message, () => alice('GET', query)] as const
    ),
    ...HEADERS.map(
      ([path, keyword, value, message]) =>
        [
          keyword,
          path,
          message,
          () => alice('POST', '', { title: 'a' }, { 'idempotency-key': value })
        ] as const
    )
  ]) {
    const answer = await send()
    expectProblem(t, answer, 'validation_failed')
    t.strictSame(
      { detail: answer.json.detail, errors: answer.json.errors },
      { detail: `${message}.`, errors: [{ path, message }] },
      `${title} ${path}`
    )
  }
})
