import { openMigrated } from '../db/migrate.js'
import { loadDatabaseConfig } from '../src/config.js'
import { runCommand } from './command.js'

// npm run db:migrate: runs the migrations, as every start does. Use it to migrate in a step of its own or with another role.
await runCommand(async () => {
  const db = await openMigrated(loadDatabaseConfig(process.env))
  await db.close()
})
