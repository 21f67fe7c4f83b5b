import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { type ErrorCode, STATUS_OF } from '../../plugins/errors/catalogue.js'
import { PROBLEM_JSON, Problem } from '../../plugins/errors/index.js'
import { AT_LEAST_ONE_OF, STORABLE, VISIBLE_ASCII } from '../../plugins/validation.js'

/** A reference to a shared schema, typed as what it refers to. */
const ref = <T extends TSchema>(schema: T) => Type.Unsafe<Static<T>>({ $ref: `${schema.$id}#` })

const instant = (description: string) => Type.String({ format: 'date-time', description })

const title = (description: string) =>
  Type.String({ minLength: 1, maxLength: 200, pattern: '\\S', format: STORABLE, description })

const description = () =>
  Type.Unsafe<string | null>({
    type: ['string', 'null'],
    maxLength: 10_000,
    format: STORABLE,
    description:
      'At most 10,000 Unicode code points, stored exactly as sent. Neither NUL nor lone surrogates.'
  })

const TITLE =
  '1 to 200 Unicode code points, at least one of them not white space, stored exactly as sent. Neither NUL nor lone surrogates.'

export const Task = Type.Object(
  {
    id: Type.String({ format: 'uuid', description: 'UUIDv7: newer tasks have greater ids.' }),
    user_id: Type.String({ description: 'Whose task it is: the `sub` of the token that made it.' }),
    title: Type.String({ minLength: 1, maxLength: 200 }),
    description: Type.Unsafe<string | null>({ type: ['string', 'null'], maxLength: 10_000 }),
    completed: Type.Boolean(),
    completed_at: Type.Unsafe<string | null>({
      type: ['string', 'null'],
      format: 'date-time',
      description: 'When `completed` last became true; null when it is false.'
    }),
    created_at: instant('RFC 3339, UTC, with milliseconds.'),
    updated_at: instant('Changes with every update and toggle, and never goes backwards.')
  },
  { $id: 'Task' }
)

export const CreateTask = Type.Object(
  {
    title: title(TITLE),
    description: Type.Optional(description()),
    completed: Type.Optional(Type.Boolean({ description: 'false when left out.' }))
  },
  { $id: 'CreateTask', description: 'Unknown fields are ignored.' }
)

export const UpdateTask = Type.Partial(Type.Pick(CreateTask, ['title', 'description', 'completed']), {
  $id: 'UpdateTask',
  minProperties: 1,
  [AT_LEAST_ONE_OF]: ['title', 'description', 'completed'],
  description:
    'At least one of `title`, `description` and `completed`; what is left out stays as it is. Unknown fields are ignored.'
})

export const SetCompletion = Type.Object(
  {
    completed: Type.Optional(
      Type.Boolean({ description: 'Sets `completed`; without it, the request flips it.' })
    )
  },
  { $id: 'SetCompletion' }
)

const userId = Type.String({
  minLength: 1,
  maxLength: 255,
  description: 'The `sub` of the token, percent-encoded.',
  examples: ['alice']
})

const UserParams = Type.Object({ userId })

export const TaskParams = Type.Object({
  userId,
  taskId: Type.String({
    format: 'uuid',
    // Ajv's own uuid also takes "urn:uuid:…", which PostgreSQL does not.
    pattern: '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$',
    description: 'The id of the task. What is not a UUID names no task.'
  })
})

const ListQuery = Type.Object({
  status: Type.Optional(
    Type.Unsafe<'all' | 'pending' | 'completed'>({
      type: 'string',
      enum: ['all', 'pending', 'completed'],
      description: '`all` when left out or empty.'
    })
  )
})

const tagList = (description: string) => Type.Optional(Type.String({ description, examples: ['"1"'] }))

const IfMatch = Type.Object({
  'if-match': tagList(
    'Entity tags from `ETag`, or `*`. The task is changed only when it has one of them; otherwise 412, and nothing is changed.'
  )
})

const IfNoneMatch = Type.Object({
  'if-none-match': tagList(
    'Entity tags from `ETag`, or `*`. 304 without a body when the task still has one of them.'
  )
})

const IdempotencyKey = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 255,
      pattern: VISIBLE_ASCII,
      description:
        'Makes the request safe to repeat: as often as it is sent with this key, there is one task. 1 to 255 visible ASCII characters, best a random UUID for each task.'
    })
  )
})

const REASONS: Partial<Record<ErrorCode, string>> = {
  bad_request:
    'Malformed JSON, invalid UTF-8, a URL that cannot be decoded, or a malformed `If-Match` or `If-None-Match`.',
  unauthorized: 'No token, or not a valid one.',
  forbidden: "The path's user is not the token's `sub`.",
  not_found: 'The user has no such task.',
  precondition_failed: 'The task has none of the versions in `If-Match`; nothing was changed.',
  body_too_large: 'The body is larger than 64 KiB.',
  unsupported_media_type: 'The body is not JSON, or has a `Content-Encoding`.',
  validation_failed: 'The query, the body or the `Idempotency-Key` breaks its schema; `errors` says where.',
  internal: 'A bug. It was logged with the request id.',
  unavailable: 'The database or the key server does not answer in time, or too much work is waiting.'
}

const header = (description: string, schema: object = { type: 'string' }) => ({ description, ...schema })

/** The error answers of an operation. Those that every one of them can give need not be named. */
function errors(...codes: ErrorCode[]) {
  const all: ErrorCode[] = ['bad_request', 'unauthorized', 'forbidden', ...codes, 'internal', 'unavailable']
  return Object.fromEntries(
    all.map((code) => [
      STATUS_OF[code],
      {
        description: REASONS[code],
        ...(code === 'unauthorized' && {
          headers: {
            'WWW-Authenticate': header('`Bearer`, with `error="invalid_token"` when a token was sent.')
          }
        }),
        ...(code === 'unavailable' && {
          headers: { 'Retry-After': header('Seconds to wait.', { type: 'integer' }) }
        }),
        ...(code === 'precondition_failed' && { headers: ETag }),
        content: { [PROBLEM_JSON]: { schema: ref(Problem) } }
      }
    ])
  )
}

const ETag = { ETag: header('The version of the task, to be sent back in `If-Match` or `If-None-Match`.') }

const json = <T extends TSchema>(description: string, schema: T, headers?: Record<string, object>) => ({
  description,
  ...(headers && { headers }),
  content: { 'application/json': { schema } }
})

const body = ['body_too_large', 'unsupported_media_type'] as const
const tags = ['tasks']

export const listTasks = {
  operationId: 'listTasks',
  summary: "List the user's tasks, newest first",
  tags,
  params: UserParams,
  querystring: ListQuery,
  response: {
    200: json('Every task of the user, newest first.', Type.Array(ref(Task))),
    ...errors('validation_failed')
  }
}

export const createTask = {
  operationId: 'createTask',
  summary: 'Create a task',
  tags,
  params: UserParams,
  headers: IdempotencyKey,
  body: ref(CreateTask),
  response: {
    201: json('The task.', ref(Task), {
      ...ETag,
      'Idempotency-Replayed': header('`true` when an earlier request with this key made the task.'),
      Location: header('Where the task is.', { type: 'string', format: 'uri-reference' })
    }),
    ...errors(...body, 'validation_failed')
  }
}

export const getTask = {
  operationId: 'getTask',
  summary: 'Get a task',
  tags,
  params: TaskParams,
  headers: IfNoneMatch,
  response: {
    200: json('The task.', ref(Task), ETag),
    304: {
      description: 'The task still has one of the versions in `If-None-Match`.',
      type: 'null',
      headers: ETag
    },
    ...errors('not_found')
  }
}

export const updateTask = {
  operationId: 'updateTask',
  summary: 'Change some fields of a task',
  tags,
  params: TaskParams,
  headers: IfMatch,
  body: ref(UpdateTask),
  response: {
    200: json('The task as it is now.', ref(Task), ETag),
    ...errors('not_found', 'precondition_failed', ...body, 'validation_failed')
  }
}

export const putTask = {
  ...updateTask,
  operationId: 'putTask',
  summary: 'The same as `updateTask`, for clients that send PUT',
  description: 'Fields that are left out stay as they are.'
}

export const deleteTask = {
  operationId: 'deleteTask',
  summary: 'Delete a task',
  tags,
  params: TaskParams,
  headers: IfMatch,
  response: {
    204: { description: 'The task is gone.', type: 'null' },
    ...errors('not_found', 'precondition_failed', ...body)
  }
}

export const toggleTaskCompletion = {
  operationId: 'toggleTaskCompletion',
  summary: 'Complete a task, or take it back',
  description:
    'Without a body, or with `{}` or `null`, flips `completed`. With `{"completed": true}` or `{"completed": false}` sets it, which is safe to repeat.',
  tags,
  params: TaskParams,
  headers: IfMatch,
  body: ref(SetCompletion),
  response: {
    200: json('The task as it is now.', ref(Task), ETag),
    ...errors('not_found', 'precondition_failed', ...body, 'validation_failed')
  }
}
