import { existsSync } from 'node:fs'
import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import { buildApp } from './app.js'
import { type Config, type Listener, loadConfig } from './config.js'
import { resolveDevelopmentSecret } from './development-secret.js'
import { StartError } from './errors.js'
import { buildOps, urlOf } from './ops.js'
import { issueToken } from './token.js'

/** How long requests in flight may take to finish once the process is told to stop. */
const GRACE_MS = 10_000

try {
  if (process.env.NODE_ENV !== 'production' && existsSync('.env')) process.loadEnvFile('.env')
  await serve(loadConfig(process.env))
} catch (error) {
  if (!(error instanceof StartError)) throw error
  console.error(error.message)
  // Not only the code: a database that was opened before must not keep the process.
  process.exit(1)
}

async function serve(config: Config): Promise<void> {
  const api = await buildApp(config)
  await listen(api, config.api, 'PORT')
  const ops = await buildOps(api, urlOf(api))
  await listen(ops, config.ops, 'OPS_PORT')

  closeWithGrace({ delay: GRACE_MS, logger: false }, async ({ err }) => {
    if (err) api.log.fatal({ err }, 'stopping after an error that nothing caught')
    ops.drain()
    await api.close()
    await ops.close()
  })

  api.log.info(`API ${urlOf(api)}, operations ${urlOf(ops)}`)
  if (!config.production) await greet(config, urlOf(api), urlOf(ops))
}

async function listen(app: FastifyInstance, listener: Listener, variable: string): Promise<void> {
  try {
    await app.listen(listener)
  } catch (error) {
    throw new StartError(`${variable}: cannot listen: ${(error as Error).message}`)
  }
}

async function greet(config: Config, apiUrl: string, opsUrl: string): Promise<void> {
  console.log(`\nAPI   ${apiUrl}\nDocs  ${opsUrl}/docs`)
  const auth = resolveDevelopmentSecret(config.auth)
  if (auth.keys.kind !== 'secret') return
  const token = await issueToken(auth, 'alice')
  console.log(`\nAlice's tasks:\ncurl -H 'Authorization: Bearer ${token}' ${apiUrl}/api/alice/tasks\n`)
}
