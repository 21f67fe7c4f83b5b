import type { FastifyInstance } from 'fastify'
import { StartError } from '../db/errors.js'
import { version } from '../plugins/openapi.js'
import { buildApp } from './app.js'
import { type Config, loadConfig } from './config.js'
import { resolveDevelopmentSecret } from './development-secret.js'
import { loadDotEnv } from './dot-env.js'
import { type LogOutput, logOutput } from './log-output.js'
import { buildOps, portOf, urlOf } from './ops.js'
import { disablePretenuring } from './pretenuring.js'
import { stopOnSignal } from './stop-on-signal.js'
import { issueToken } from './token.js'

/** Undefined for a terminal of a developer, which gets readable lines. */
let logs: LogOutput | undefined
try {
  loadDotEnv(process.env)
  await serve(loadConfig(process.env))
} catch (error) {
  if (!(error instanceof StartError)) throw error
  console.error(error.message)
  await logs?.written()
  // Setting process.exitCode is not enough: an open database keeps the process alive.
  process.exit(1)
}

async function serve(config: Config): Promise<void> {
  const isTerminal = !config.production && process.stdout.isTTY
  const tracing =
    config.tracing && (await import('../plugins/tracing.js')).startTracing({ ...config.tracing, version })
  logs = isTerminal ? undefined : logOutput(process.stdout.fd)
  const api = await buildApp(config, { tracing, logStream: logs ?? (await readableLines()) })
  disablePretenuring()
  await listen(api, config.api, '')
  const ops = await buildOps(api)
  await listen(ops, config.ops, 'OPS_')
  if (!config.production) api.allowPagesOnPort(portOf(ops))

  stopOnSignal(api, ops, config.graceMs, { tracing, logs })

  if (!isTerminal) api.log.info(`API ${urlOf(api)}, operations ${urlOf(ops)}`)
  if (!config.production) await greet(config, urlOf(api), urlOf(ops))
}

async function listen(app: FastifyInstance, listener: Config['api'], prefix: '' | 'OPS_'): Promise<void> {
  try {
    await app.listenOnAll(listener)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const variable = code === 'EADDRINUSE' || code === 'EACCES' ? 'PORT' : 'HOST'
    throw new StartError(`${prefix}${variable}: cannot listen: ${message}`)
  }
}

/** Log lines for a terminal. Synchronous writes keep them in order with the output of console.log. */
async function readableLines() {
  const { default: pretty } = await import('pino-pretty')
  return pretty({ ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss', sync: true })
}

/** Prints the URLs, and a command to try. */
async function greet(config: Config, apiUrl: string, opsUrl: string): Promise<void> {
  const { database } = config
  const auth = resolveDevelopmentSecret(config.auth)
  const { keys } = auth
  const lines = [
    '',
    `API   ${apiUrl}`,
    `Docs  ${opsUrl}/docs`,
    `Data  ${database.kind === 'embedded' ? database.directory : 'the PostgreSQL of DATABASE_URL'}`,
    `Token ${keys.kind === 'secret' ? 'npm run -s token -- alice' : `from the issuer whose keys are at ${keys.url}`}`,
    ''
  ]
  if (keys.kind === 'secret') {
    const token = await issueToken(auth, 'alice')
    lines.push("Alice's tasks:", `curl -H 'Authorization: Bearer ${token}' ${apiUrl}/api/alice/tasks`, '')
  }
  console.log(lines.join('\n'))
}
