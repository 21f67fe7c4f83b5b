import { type FastifyInstance, LogController } from 'fastify'
import type { Logger } from 'pino'
import auth from '../plugins/auth/index.js'
import cors from '../plugins/cors.js'
import database from '../plugins/database.js'
import databaseMetrics from '../plugins/database-metrics.js'
import errors from '../plugins/errors/index.js'
import jsonBody from '../plugins/json-body.js'
import metrics, { countsOf } from '../plugins/metrics.js'
import notFound, { ROUTER, rewriteUrl } from '../plugins/not-found.js'
import openapi from '../plugins/openapi.js'
import requiredHost from '../plugins/required-host.js'
import securityHeaders from '../plugins/security-headers.js'
import type { Tracing } from '../plugins/tracing.js'
import { ajv } from '../plugins/validation.js'
import tasks from '../routes/tasks/index.js'
import type { Config } from './config.js'
import { resolveDevelopmentSecret } from './development-secret.js'
import { httpServer } from './http-server.js'
import { LOG_FAILURES, type LogOutput } from './log-output.js'
import { loggerOptions } from './logger.js'
import { requestId } from './request-id.js'

/** Largest request body, in bytes. */
const BODY_LIMIT = 65_536

export interface Overrides {
  /** Receives the log lines instead of standard output, and may tell of its failures. */
  logStream?: Pick<LogOutput, 'write'> & Partial<LogOutput>
  /** Traces requests and statements. */
  tracing?: Tracing | undefined
}

/** Builds the API listener, ready to listen. It reads neither the environment nor the process. */
export async function buildApp(
  config: Config,
  { logStream, tracing }: Overrides = {}
): Promise<FastifyInstance> {
  const app = httpServer({
    logger: loggerOptions(config.logLevel, logStream, tracing?.logFields),
    // Fastify would log two lines for each request, with the URL. The onResponse hook below logs one, without it.
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: requestId,
    requestIdHeader: false,
    bodyLimit: BODY_LIMIT,
    keepAliveTimeout: config.keepAliveMs,
    // Fastify's default is 10 seconds, and creating an embedded database takes longer on a slow machine. Each step of the
    // start that waits has a timeout of its own.
    pluginTimeout: 0,
    ajv,
    routerOptions: ROUTER,
    rewriteUrl
  })

  const requestLevel = config.logRequests ? 'info' : 'debug'
  // Without the hook a request is cheaper than with a hook that logs nothing.
  if ((app.log as Logger).isLevelEnabled(requestLevel)) {
    app.addHook('onResponse', (request, reply, done) => {
      request.log[requestLevel](
        { req: request, res: reply, milliseconds: reply.elapsedTime },
        'request answered'
      )
      done()
    })
  }

  if (tracing) await app.register(tracing.plugin)
  await app.register(securityHeaders)
  await app.register(requiredHost)
  await app.register(metrics)
  const logFailures = countsOf(app.metrics, {
    name: 'log_output_failures_total',
    help: 'Attempts to write log lines that failed and are repeated, and lines that were dropped.',
    label: 'kind',
    values: LOG_FAILURES
  })
  logStream?.onFailure?.((kind) => logFailures[kind]++)
  await app.register(errors)
  await app.register(cors, { origins: config.corsOrigins })
  await app.register(auth, { auth: resolveDevelopmentSecret(config.auth) })
  await app.register(database, { database: config.database })
  await app.register(databaseMetrics)
  if (tracing) app.db = tracing.database(app.db)
  await app.register(openapi)
  await app.register(jsonBody)

  // At the root, so that every route below and every unknown path needs a token.
  app.addHook('onRequest', app.authenticate)
  await app.register(notFound)

  await app.register(tasks, { prefix: '/api/:userId/tasks' })

  await app.ready()
  return app
}
