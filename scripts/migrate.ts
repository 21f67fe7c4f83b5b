import { openMigrated } from '../db/migrate.js'
import { loadConfig } from '../src/config.js'
import { runCommand } from './command.js'

// npm run db:migrate: runs the migrations. Every start does so too; this is for a step of its own, or another role.
await runCommand(async () => {
  const db = await openMigrated(loadConfig(process.env).database)
  await db.close()
})
