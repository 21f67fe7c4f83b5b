import { parseArgs } from 'node:util'
import { StartError } from '../db/errors.js'
import type { Database, DatabaseConfig } from '../db/index.js'
import { openMigrated } from '../db/migrate.js'
import { loadDatabaseConfig } from '../src/config.js'
import { runCommand } from './command.js'

/** Opens a database, and closes it after the work. An embedded database must exist. */
export async function withDatabase(
  config: DatabaseConfig,
  work: (db: Database) => Promise<void>
): Promise<void> {
  const db = await openMigrated(config.kind === 'embedded' ? { ...config, mustExist: true } : config)
  try {
    await work(db)
  } finally {
    await db.close()
  }
}

/** Runs a command whose only argument is a user. */
export const runUserCommand = (name: string, work: (db: Database, user: string) => Promise<void>) =>
  runCommand(async () => {
    const user = userOf(name)
    await withDatabase(loadDatabaseConfig(process.env), (db) => work(db, user))
  })

function userOf(name: string): string {
  try {
    const [user, ...rest] = parseArgs({ allowPositionals: true }).positionals
    if (user && rest.length === 0) return user
  } catch {
    // It begins with a hyphen, so it was taken for an option.
  }
  throw new StartError(
    `usage: npm run -s ${name} -- <user id> (if the id begins with -, write -- -- <user id>)`
  )
}
