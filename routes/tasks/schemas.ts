import { type StringOptions, type TSchema, type TUnsafe, Type } from '@sinclair/typebox'
import {
  AT_LEAST_ONE_OF,
  NOT_BLANK,
  STORABLE,
  VISIBLE_ASCII,
  type Violation
} from '../../plugins/validation.js'
import { ETag, errors, header, ref } from './errors.js'

const timestamp = (description: string) => Type.String({ format: 'date-time', description })

const TASK = {
  id: '01a1fd44-d086-7681-8494-396105ac4a51',
  user_id: 'alice',
  title: 'Buy milk',
  description: null,
  completed: false,
  completed_at: null,
  created_at: '2026-11-21T08:41:47.910Z',
  updated_at: '2026-11-21T08:41:47.910Z'
}

export const Task = Type.Object(
  {
    id: Type.String({ format: 'uuid', description: 'UUIDv7: newer tasks have greater ids.' }),
    user_id: Type.String({ description: 'The owner: the `sub` of the token that created the task.' }),
    title: Type.String({
      minLength: 1,
      maxLength: 200,
      description: 'The text of the task, exactly as it was sent.',
      examples: [TASK.title]
    }),
    description: Type.Unsafe<string | null>({
      type: ['string', 'null'],
      maxLength: 10_000,
      description: 'More text, exactly as it was sent, or null.'
    }),
    completed: Type.Boolean({ description: 'True if the task is done.' }),
    completed_at: Type.Unsafe<string | null>({
      type: ['string', 'null'],
      format: 'date-time',
      description: 'The time when `completed` last became true; null if it is false.'
    }),
    created_at: timestamp('The time of the creation: RFC 3339, UTC, with milliseconds.'),
    updated_at: timestamp(
      'The time of the last change: RFC 3339, UTC, with milliseconds. It increases with every update and toggle.'
    )
  },
  { $id: 'Task', description: 'A task of a user.', examples: [TASK] }
)

/** This is a function, because each schema needs its own copy of the property. */
const title = () =>
  Type.String({
    minLength: 1,
    maxLength: 200,
    pattern: NOT_BLANK,
    format: STORABLE,
    description:
      '1 to 200 Unicode code points, at least one of them not white space. Stored exactly as sent. NUL and lone surrogates are refused.',
    examples: [TASK.title]
  })

const description = (whenLeftOut: string) =>
  Type.Unsafe<string | null>({
    type: ['string', 'null'],
    maxLength: 10_000,
    format: STORABLE,
    description: `At most 10,000 Unicode code points, or null. Stored exactly as sent. NUL and lone surrogates are refused. ${whenLeftOut}`,
    examples: ['Two litres']
  })

export const CreateTask = Type.Object(
  {
    title: title(),
    description: Type.Optional(description('Defaults to null.')),
    completed: Type.Optional(Type.Boolean({ description: 'Defaults to false.' }))
  },
  {
    $id: 'CreateTask',
    description: 'A task to create. Unknown fields are ignored.',
    examples: [{ title: TASK.title }]
  }
)

const UNCHANGED = 'Does not change if left out.'

export const UpdateTask = Type.Partial(
  Type.Object({
    title: title(),
    description: description(UNCHANGED),
    completed: Type.Boolean({ description: UNCHANGED })
  }),
  {
    $id: 'UpdateTask',
    minProperties: 1,
    [AT_LEAST_ONE_OF]: ['title', 'description', 'completed'],
    description:
      'The fields to change: at least one of `title`, `description` and `completed`. Other fields do not change. Unknown fields are ignored.',
    examples: [{ title: 'Buy bread' }]
  }
)

export const SetCompletion = Type.Object(
  {
    completed: Type.Optional(
      Type.Boolean({
        description: 'The new value of `completed`. Without it, the request flips `completed`.'
      })
    )
  },
  {
    $id: 'SetCompletion',
    description: 'The new value of `completed`. An empty object flips it.',
    examples: [{ completed: true }]
  }
)

const userId = Type.String({
  minLength: 1,
  maxLength: 255,
  description: 'The `sub` of the token.',
  examples: [TASK.user_id]
})

const UserParams = Type.Object({ userId })

const TaskParams = Type.Object({
  userId,
  taskId: Type.String({
    format: 'uuid',
    // Ajv's uuid format also accepts "urn:uuid:…", and PostgreSQL does not.
    pattern: '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$',
    description: 'The `id` of the task. Any value that is not a UUID gets 404.',
    examples: [TASK.id]
  })
})

export const ListQuery = Type.Object({
  status: Type.Optional(
    Type.Unsafe<'all' | 'pending' | 'completed'>({
      type: 'string',
      enum: ['all', 'pending', 'completed'],
      description: 'Filters by `completed`. Defaults to `all`, also if it is empty.'
    })
  )
})

/** An optional request header. The document shows its usual case. Node and Fastify have header names in lower case. */
const optionalHeader = <const Name extends string>(name: Name, description: string, rules?: StringOptions) =>
  Type.Object({ [name]: Type.Optional(Type.String({ ...rules, description })) }) as TSchema as TUnsafe<{
    [K in Lowercase<Name>]?: string
  }>

// These headers have no examples. A documentation page would send an example with every request, and its version would
// not match.
const IfMatch = optionalHeader(
  'If-Match',
  'Entity tags from `ETag`, or `*`. The task is changed only if it has one of these versions. Otherwise the answer is 412.'
)

const IfNoneMatch = optionalHeader(
  'If-None-Match',
  'Entity tags from `ETag`, or `*`. If the task still has one of these versions, the answer is 304 without a body.'
)

export const IdempotencyKey = optionalHeader(
  'Idempotency-Key',
  'Makes a retry safe: repeated requests with this key create one task. 1 to 255 visible ASCII characters; use a random UUID for each task.',
  { minLength: 1, maxLength: 255, pattern: VISIBLE_ASCII }
)

const json = <T extends TSchema>(description: string, schema: T, headers?: Record<string, object>) => ({
  description,
  ...(headers && { headers }),
  content: { 'application/json': { schema } }
})

const ofUser = { tags: ['tasks'], params: UserParams }
const ofTask = { tags: ['tasks'], params: TaskParams }

const EMPTY_TITLE = { path: '/title', message: 'title must not be empty' }

const changedTask = (invalid: Violation) => ({
  200: json('The task as it is now.', ref(Task), ETag),
  ...errors({ task: true, body: true, condition: 'If-Match', invalid })
})

export const listTasks = {
  operationId: 'listTasks',
  summary: "List the user's tasks, newest first",
  description:
    'Returns every task in one array, without pagination. `status` selects pending or completed tasks.',
  ...ofUser,
  querystring: ListQuery,
  response: {
    200: json(
      'Every task of the user, newest first.',
      Type.Array(ref(Task), { description: 'Tasks, newest first.' })
    ),
    ...errors({ invalid: { path: '/status', message: 'status must be all, pending, or completed' } })
  }
}

export const createTask = {
  operationId: 'createTask',
  summary: 'Create a task',
  description: 'With an `Idempotency-Key` a client can safely retry when it gets no answer.',
  ...ofUser,
  headers: IdempotencyKey,
  body: ref(CreateTask),
  response: {
    201: json('The task.', ref(Task), {
      ...ETag,
      'Idempotency-Replayed': header('`true` if an earlier request with this key created the task.'),
      Location: header('The path of the task.', { type: 'string', format: 'uri-reference' })
    }),
    ...errors({ body: true, idempotencyKey: true, invalid: EMPTY_TITLE })
  }
}

export const getTask = {
  operationId: 'getTask',
  summary: 'Get a task',
  description: 'With `If-None-Match` the task is returned only if it has changed.',
  ...ofTask,
  headers: IfNoneMatch,
  response: {
    200: json('The task.', ref(Task), ETag),
    304: {
      description: 'The task still has one of the versions in `If-None-Match`.',
      type: 'null',
      headers: ETag
    },
    ...errors({ task: true, condition: 'If-None-Match' })
  }
}

export const updateTask = {
  operationId: 'updateTask',
  summary: 'Change some fields of a task',
  description:
    'Fields that are left out do not change. With `If-Match` a client cannot overwrite a change that it has not seen.',
  ...ofTask,
  headers: IfMatch,
  body: ref(UpdateTask),
  response: changedTask(EMPTY_TITLE)
}

export const putTask = {
  ...updateTask,
  operationId: 'putTask',
  summary: 'Change some fields of a task, for clients that send PUT',
  description: 'The same as `updateTask`: fields that are left out do not change.'
}

export const deleteTask = {
  operationId: 'deleteTask',
  summary: 'Delete a task',
  description:
    'Afterwards its id gets 404, like one that never existed or belongs to someone else. With `If-Match` only a version that the client has seen is deleted.',
  ...ofTask,
  headers: IfMatch,
  response: {
    204: { description: 'The task was deleted.', type: 'null' },
    ...errors({ task: true, body: true, condition: 'If-Match' })
  }
}

export const toggleTaskCompletion = {
  operationId: 'toggleTaskCompletion',
  summary: 'Complete a task, or mark it as pending again',
  description:
    'Without a body, or with `{}` or `null`, the request flips `completed`. `{"completed": true}` or `{"completed": false}` sets it, and is safe to repeat.',
  ...ofTask,
  headers: IfMatch,
  body: ref(SetCompletion),
  response: changedTask({ path: '/completed', message: 'completed must be true or false' })
}
