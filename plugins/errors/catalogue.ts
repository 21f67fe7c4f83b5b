import { createError, type FastifyError } from '@fastify/error'
import { DatabaseUnavailable, OUTAGE_REASONS } from '../../db/errors.js'

/**
 * Every error code that a client can get, with its HTTP status. Input that cannot be parsed as a complete HTTP request gets
 * `bad_request` with 400, 408 or 431.
 */
export const STATUS_OF = {
  bad_request: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  precondition_failed: 412,
  body_too_large: 413,
  unsupported_media_type: 415,
  validation_failed: 422,
  idempotency_key_reused: 422,
  internal: 500,
  unavailable: 503
} as const

export type ErrorCode = keyof typeof STATUS_OF

/** Marks an error as an answer of this service. A check of `code` would not do: libraries may use the same codes. */
class ApiError extends Error {}

/** @returns undefined for an error of a library, or any other thrown value */
export function problemCodeOf(error: unknown): ErrorCode | undefined {
  // @fastify/error turns codes into upper case.
  return error instanceof ApiError ? ((error as FastifyError).code.toLowerCase() as ErrorCode) : undefined
}

// These errors are answers, not bugs. They have no stack, because recording one for every bad token would be expensive.
const define = (code: ErrorCode, detail: string) =>
  createError(code, detail, STATUS_OF[code], ApiError as ErrorConstructor, false)

// The message is the `detail` of the answer, so it must contain no secret and no internals.
export const BadRequest = define('bad_request', '%s')
export const UndecodablePath = define('bad_request', 'The path of the URL cannot be decoded.')
export const InvalidHttp = define('bad_request', 'This is not a valid HTTP request.')
export const InvalidJson = define('bad_request', 'The request body is not valid JSON.')
export const InvalidEntityTags = define('bad_request', '%s must be * or a list of entity tags such as "1".')
// Both have the same message, so that an answer never tells which part of a token is wrong.
export const MissingToken = define('unauthorized', 'A valid bearer token is required.')
export const InvalidToken = define('unauthorized', 'A valid bearer token is required.')
export const Forbidden = define('forbidden', 'The user in the path is not the user of the token.')
export const TaskNotFound = define('not_found', 'There is no such task.')
export const RouteNotFound = define('not_found', 'There is nothing at this path.')
export const MethodNotAllowed = define('method_not_allowed', 'This path does not support this method.')
export const PreconditionFailed = define(
  'precondition_failed',
  'The task has changed since the version that If-Match names. The current one is in ETag.'
)
export const BodyTooLarge = define('body_too_large', 'The request body is larger than 64 KiB.')
export const UnsupportedMediaType = define(
  'unsupported_media_type',
  'The request body must be sent as application/json.'
)
export const UnsupportedContentCoding = define(
  'unsupported_media_type',
  'The request body must be sent without a Content-Encoding.'
)
export const ValidationFailed = define('validation_failed', '%s')
export const IdempotencyKeyReused = define(
  'idempotency_key_reused',
  'A task was already created with this Idempotency-Key and another body.'
)
export const Internal = define(
  'internal',
  'The service failed to answer this request. The failure was logged.'
)
export const Unavailable = define(
  'unavailable',
  'The service cannot answer at the moment. Try again shortly.'
)

/** The reasons of a 503: the database's, and `keys` for the key server. */
export const SHED_REASONS = [...OUTAGE_REASONS, 'keys'] as const

export const shedReason = (error: Error): (typeof SHED_REASONS)[number] =>
  error instanceof DatabaseUnavailable ? error.reason : 'keys'
