import type { Database, DatabaseConfig } from '../db/index.js'
import { openMigrated } from '../db/migrate.js'

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
