import type { FastifyServerOptions } from 'fastify'
import { stdSerializers } from 'pino'
import type { Config } from './config.js'

/**
 * Log lines say which route, never which URL, body or header: those hold user ids, tokens and what users wrote.
 */
export function loggerOptions(
  level: Config['logLevel'],
  stream: { write(line: string): void } | undefined
): NonNullable<FastifyServerOptions['logger']> {
  return {
    level,
    ...(stream && { stream }),
    serializers: {
      req: ({ method, routeOptions }) => ({ method, route: routeOptions?.url }),
      res: ({ statusCode }) => ({ statusCode }),
      err: describe
    }
  }
}

/** An error without the fields that drivers add to it, such as the statement and its parameters. */
function describe(error: Error) {
  const { type, message, stack, code } = stdSerializers.err(error)
  return { type, message, stack, code }
}
