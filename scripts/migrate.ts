import { StartError } from '../db/errors.js'
import { openMigrated } from '../db/migrate.js'
import { loadConfig } from '../src/config.js'
import { loadDotEnv } from '../src/dot-env.js'

// npm run db:migrate: what every start does first, for operators who want it done before, or by another role.
try {
  loadDotEnv(process.env)
  const db = await openMigrated(loadConfig(process.env).database)
  await db.close()
} catch (error) {
  if (!(error instanceof StartError)) throw error
  console.error(error.message)
  // Not only the code: the driver may still be trying to connect.
  process.exit(1)
}
