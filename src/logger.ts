import type { FastifyServerOptions } from 'fastify'
import { type LoggerOptions, type SerializedError, stdSerializers } from 'pino'
import type { Config } from './config.js'

/** Log lines have the route, never the URL, body or headers: those contain user ids, tokens and users' text. */
export function loggerOptions(
  level: Config['logLevel'],
  stream: { write(line: string): void } | undefined,
  mixin: LoggerOptions['mixin']
): NonNullable<FastifyServerOptions['logger']> {
  return {
    level,
    ...(stream && { stream }),
    ...(mixin && { mixin }),
    serializers: {
      req: ({ method, routeOptions }) => ({ method, route: routeOptions?.url }),
      res: ({ statusCode }) => ({ statusCode }),
      err: describe
    }
  }
}

/** PostgreSQL's class of data exceptions. Their messages quote the value, which may be a user's text. */
const DATA_EXCEPTION = /^22[0-9A-Z]{3}$/

/** Leaves out the fields that drivers add to an error, such as the statement and its parameters. */
function describe(error: Error) {
  const { type, message, stack, code } = stdSerializers.err(error) as SerializedError & { code?: unknown }
  if (typeof code !== 'string' || !DATA_EXCEPTION.test(code)) return { type, message, stack, code }
  const withoutValue = message.replace(/".*$/s, '…')
  return { type, message: withoutValue, stack: stack.replaceAll(message, () => withoutValue), code }
}
