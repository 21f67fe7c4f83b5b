import { StartError } from '../../db/errors.js'
import { openMigrated } from '../../db/migrate.js'
import { buildApp } from '../../src/app.js'
import { loadConfig } from '../../src/config.js'

// What the programs do with their environment, without a process for each try. That the programs print the message of
// a StartError and end with code 1 is for their own tests.

type Env = Record<string, string>

/** What `npm run db:migrate` does. */
export async function migrateWith(env: Env): Promise<void> {
  const db = await openMigrated(loadConfig(env).database)
  await db.close()
}

/** The line with which a migration with these settings is refused. */
export const migrationRefusal = (env: Env) => refusalOf(() => migrateWith(env))

/** The line with which a start with these settings is refused, before anything listens. */
export const startRefusal = (env: Env) =>
  refusalOf(async () => {
    const app = await buildApp(loadConfig({ LOG_LEVEL: 'silent', ...env }))
    await app.close()
  })

async function refusalOf(start: () => Promise<void>): Promise<string> {
  try {
    await start()
  } catch (error) {
    if (error instanceof StartError) return error.message
    throw error
  }
  throw new Error('nothing was refused')
}
