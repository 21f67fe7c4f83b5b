import { openMigrated } from '../db/migrate.js'
import { loadConfig } from '../src/config.js'
import { runCommand } from './command.js'

// npm run db:migrate: what every start does first, for operators who want it done before, or by another role.
await runCommand(async () => {
  const db = await openMigrated(loadConfig(process.env).database)
  await db.close()
})
