import type { FastifyServerOptions } from 'fastify'
import { type SerializedError, stdSerializers } from 'pino'
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

/** PostgreSQL's class of data exceptions: their messages quote the value, which may be what a user wrote. */
const DATA_EXCEPTION = /^22[0-9A-Z]{3}$/

/** An error without the fields that drivers add to it, such as the statement and its parameters. */
function describe(error: Error) {
  const { type, message, stack, code } = stdSerializers.err(error) as SerializedError & { code?: unknown }
  if (typeof code !== 'string' || !DATA_EXCEPTION.test(code)) return { type, message, stack, code }
  const withoutValue = message.replace(/".*$/s, '…')
  return { type, message: withoutValue, stack: stack.replaceAll(message, () => withoutValue), code }
}
