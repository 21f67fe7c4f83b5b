import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { BROKEN_REQUESTS } from '../../plugins/errors/broken-requests.js'
import * as catalogue from '../../plugins/errors/catalogue.js'
import { PROBLEM_JSON, Problem, problem } from '../../plugins/errors/index.js'
import { sentenceOf, type Violation } from '../../plugins/validation.js'

/** A `$ref` to a shared schema, with the static type of that schema. */
export const ref = <T extends TSchema>(schema: T) => Type.Unsafe<Static<T>>({ $ref: `${schema.$id}#` })

export const header = (description: string, schema: object = { type: 'string' }) => ({
  description,
  ...schema
})

export const ETag = {
  ETag: header('The version of the task, for `If-Match` or `If-None-Match`.')
}

/** The parts of a request that an operation reads. They decide which errors it can answer. */
interface Reads {
  /** The path has a task's id. */
  task?: boolean
  body?: boolean
  condition?: 'If-Match' | 'If-None-Match'
  idempotencyKey?: boolean
  /** An example of a broken rule in the query, the headers or the body. */
  invalid?: Violation
}

/** The error answers of an operation, with examples. A test compares these with the real answers. */
export function errors({ task, body, condition, idempotencyKey, invalid }: Reads) {
  return {
    400: answer(
      `${[
        'The URL cannot be decoded',
        body && 'the body is malformed JSON or invalid UTF-8',
        condition && `\`${condition}\` is malformed`,
        'the request is not valid HTTP'
      ]
        .filter(Boolean)
        .join(', or ')}.`,
      {
        undecodable_path: example(catalogue.UndecodablePath),
        ...(body && { invalid_json: example(catalogue.InvalidJson) }),
        ...(condition && { invalid_entity_tags: example(catalogue.InvalidEntityTags, condition) }),
        invalid_http: BROKEN_REQUESTS[400]
      }
    ),
    401: answer('There is no valid token.', example(catalogue.MissingToken), {
      'WWW-Authenticate': header('`Bearer`, with `error="invalid_token"` if a token was sent.')
    }),
    403: answer("The path's user is not the token's `sub`.", example(catalogue.Forbidden)),
    ...(task && { 404: answer('The user has no such task.', example(catalogue.TaskNotFound)) }),
    405: answer('The path exists, but does not support this method.', example(catalogue.MethodNotAllowed), {
      Allow: header('The methods that the path supports.')
    }),
    408: answer('The request took longer than 10 seconds to arrive.', BROKEN_REQUESTS[408]),
    ...(condition === 'If-Match' && {
      412: answer(
        'The task has none of the versions in `If-Match`. Nothing was changed.',
        example(catalogue.PreconditionFailed),
        ETag
      )
    }),
    ...(body && {
      413: answer('The body is larger than 64 KiB.', example(catalogue.BodyTooLarge)),
      415: answer(
        'The body is not JSON, or has a `Content-Encoding`.',
        example(catalogue.UnsupportedMediaType)
      )
    }),
    ...(invalid && {
      422: answer(
        idempotencyKey
          ? 'The body or the `Idempotency-Key` breaks its schema; see `errors`. Or a task was already created with this key and another body.'
          : `The ${body ? 'body' : 'query'} breaks its schema; see \`errors\`.`,
        {
          validation_failed: problem('validation_failed', sentenceOf([invalid]), { errors: [invalid] }),
          ...(idempotencyKey && { idempotency_key_reused: example(catalogue.IdempotencyKeyReused) })
        }
      )
    }),
    431: answer('The headers, or the URL, are larger than 16 KiB.', BROKEN_REQUESTS[431]),
    500: answer(
      'A bug. The log has the error with the `X-Request-Id` of the answer.',
      example(catalogue.Internal)
    ),
    503: answer(
      'The database or the key server cannot be used or does not answer in time, or the service is overloaded.',
      example(catalogue.Unavailable),
      { 'Retry-After': header('Seconds until a retry.', { type: 'integer' }) }
    )
  }
}

type Example = ReturnType<typeof problem>

function example(ApiError: new (...values: string[]) => Error, ...values: string[]): Example {
  const error = new ApiError(...values)
  return problem(catalogue.problemCodeOf(error) as catalogue.ErrorCode, error.message)
}

/** @param examples one example, or several by name */
function answer(
  description: string,
  examples: Example | Record<string, Example>,
  headers?: Record<string, object>
) {
  const named = isOne(examples) ? { [examples.code]: examples } : examples
  return {
    description,
    ...(headers && { headers }),
    content: {
      [PROBLEM_JSON]: {
        schema: ref(Problem),
        examples: Object.fromEntries(Object.entries(named).map(([name, value]) => [name, { value }]))
      }
    }
  }
}

const isOne = (examples: Example | Record<string, Example>): examples is Example =>
  typeof examples.code === 'string'
