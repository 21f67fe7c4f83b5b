import { openMigrated } from '../db/migrate.js'
import { loadDatabaseConfig } from '../src/config.js'
import { runCommand } from './command.js'

// npm run db:migrate: runs the migrations. Every start does so too; this is for a step of its own, or another role.
await runCommand(async () => {
  const db = await openMigrated(loadDatabaseConfig(process.env))
  await db.close()
})
