import { InvalidHttp } from './catalogue.js'
import { problem } from './index.js'

/** Answers to input that cannot be parsed as a complete HTTP request, by status. */
export const BROKEN_REQUESTS = {
  400: problem('bad_request', new InvalidHttp().message),
  408: problem('bad_request', 'The request did not arrive in time.', { status: 408 }),
  431: problem('bad_request', 'The request headers are larger than 16 KiB.', { status: 431 })
}
