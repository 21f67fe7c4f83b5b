import { StartError } from '../../db/errors.js'
import { openMigrated } from '../../db/migrate.js'
import { buildApp } from '../../src/app.js'
import { loadConfig, loadDatabaseConfig } from '../../src/config.js'

// The programs' work with an environment, without starting a process for each case. Tests of the programs themselves
// check that they print the message of a StartError, and end with code 1.

type Env = Record<string, string>

/** The same as `npm run db:migrate`. */
export async function migrateWith(env: Env): Promise<void> {
  const db = await openMigrated(loadDatabaseConfig(env))
  await db.close()
}

/** The message of a migration that these settings make fail. */
export const migrationRefusal = (env: Env) => refusalOf(() => migrateWith(env))

/** The message of a start that these settings make fail before any listener is open. */
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
