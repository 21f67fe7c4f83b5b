import { STATUS_CODES } from 'node:http'
import { Type } from '@sinclair/typebox'
import type { FastifyError, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { DatabaseUnavailable, IdempotencyKeyConflict } from '../../db/errors.js'
import { causeOf } from '../../db/sqlstate.js'
import { isOwner } from '../auth/index.js'
import { countEvery } from '../count-every.js'
import { sentenceOf, type Violation, violationsOf } from '../validation.js'
import * as catalogue from './catalogue.js'
import { type ErrorCode, problemCodeOf, STATUS_OF, shedReason } from './catalogue.js'

export const PROBLEM_JSON = 'application/problem+json'

/** The body of every error: RFC 9457. */
export const Problem = Type.Object(
  {
    type: Type.Literal('about:blank', { description: 'Always `about:blank`: see `code`.' }),
    title: Type.String({ description: 'The phrase of the HTTP status.' }),
    status: Type.Integer({ minimum: 400, maximum: 599, description: 'The HTTP status.' }),
    detail: Type.String({ description: 'A sentence for a person.' }),
    code: Type.Unsafe<ErrorCode>({
      type: 'string',
      enum: Object.keys(STATUS_OF),
      description: 'A stable code for programs.'
    }),
    errors: Type.Optional(
      Type.Array(
        Type.Object(
          {
            path: Type.String({
              description:
                'A JSON pointer (RFC 6901) into the body, the query or the headers; empty for the whole.'
            }),
            message: Type.String({ description: 'A sentence for a person.' })
          },
          { description: 'One broken rule.' }
        ),
        { description: 'Every broken rule, with `validation_failed`.' }
      )
    )
  },
  { $id: 'Problem', description: 'An error (RFC 9457).' }
)

/** Builds the body of an error. */
export function problem(
  code: ErrorCode,
  detail: string,
  { status = STATUS_OF[code], errors }: { status?: number; errors?: Violation[] | undefined } = {}
) {
  return { type: 'about:blank', title: STATUS_CODES[status], status, detail, code, ...(errors && { errors }) }
}

/**
 * Minimum time between two log lines about refused requests, in milliseconds. In an outage thousands are refused in a
 * second, and a line for each would cost more than the requests.
 */
const REFUSALS_MS = 1_000

/** Turns every thrown value into an answer. */
export default fp(
  async (app) => {
    app.addSchema(Problem)
    const countRefusal = countEvery(REFUSALS_MS)
    app.setErrorHandler<FastifyError>((anything, request, reply) => {
      // JavaScript can throw any value, even null.
      const thrown =
        anything instanceof Error ? anything : (new Error('the thrown value is not an Error') as FastifyError)
      const error = translate(thrown, request)
      const code = problemCodeOf(error) as ErrorCode
      if (code === 'internal') request.log.error({ req: request, err: causeOf(thrown) }, 'request failed')
      if (code === 'unavailable') {
        reply.header('Retry-After', '1')
        const refusals = countRefusal()
        if (refusals !== undefined) {
          // The innermost error is PostgreSQL's own, with its code.
          const log = { req: request, err: causeOf(error), reason: shedReason(thrown), refusals }
          request.log.warn(log, 'requests refused')
        }
      }
      // RFC 9110, section 12.5.3, allows this header only on a 415 about the content coding.
      if (error.constructor === catalogue.UnsupportedContentCoding)
        reply.header('Accept-Encoding', 'identity')
      if (code === 'unauthorized') reply.header('WWW-Authenticate', challenge(error))
      const errors = code === 'validation_failed' ? violationsOf(thrown) : undefined
      return reply
        .code(STATUS_OF[code])
        .type(PROBLEM_JSON)
        .send(problem(code, error.message, { errors }))
    })
  },
  { name: 'errors' }
)

/** The challenge for a request without a token has no error code: RFC 6750, section 3. */
function challenge(error: Error): string {
  return `Bearer realm="tasks"${error.constructor === catalogue.InvalidToken ? ', error="invalid_token"' : ''}`
}

/** Replaces an error of a library or of the database by one of ours, because its message may reveal internals. */
function translate(error: FastifyError, request: FastifyRequest): Error {
  if (problemCodeOf(error)) return error
  if (error instanceof DatabaseUnavailable) return new catalogue.Unavailable({ cause: error.cause })
  if (error instanceof IdempotencyKeyConflict) return new catalogue.IdempotencyKeyReused()
  if (error.validationContext === 'params') {
    // A task id that is not a UUID returns 404. The wrong user in the path still returns 403.
    return isOwner(request) ? new catalogue.TaskNotFound() : new catalogue.Forbidden()
  }
  if (error.validation) return new catalogue.ValidationFailed(sentenceOf(violationsOf(error)))
  const Replacement = BY_STATUS[error.statusCode ?? 500] ?? catalogue.Internal
  return new Replacement()
}

/** Replacements for errors of Fastify. Any other error is a bug. */
const BY_STATUS: Record<number, new () => Error> = {
  400: catalogue.InvalidHttp,
  413: catalogue.BodyTooLarge,
  415: catalogue.UnsupportedMediaType
}
