import { existsSync } from 'node:fs'
import { openDatabase } from '../db/client.js'
import { migrate } from '../db/migrate.js'
import { loadConfig } from '../src/config.js'

// npm run db:migrate: what every start does first, for operators who want it done before, or by another role.
try {
  if (process.env.NODE_ENV !== 'production' && existsSync('.env')) process.loadEnvFile('.env')
  const db = await openDatabase(loadConfig(process.env).database)
  try {
    await db.administer(migrate)
  } finally {
    await db.close()
  }
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
}
