import { copyTasks } from '../db/copy.js'
import { StartError } from '../db/errors.js'
import { loadDatabaseConfig } from '../src/config.js'
import { runCommand } from './command.js'
import { withDatabase } from './database.js'

// npm run db:copy: copies the embedded database in DATA_DIR into the PostgreSQL in DATABASE_URL.
await runCommand(async () => {
  const { DATA_DIR } = process.env
  const target = loadDatabaseConfig(process.env)
  if (target.kind === 'embedded') {
    throw new StartError('DATABASE_URL must be set: the embedded database in DATA_DIR is copied into it')
  }
  const source = loadDatabaseConfig({ DATA_DIR })
  await withDatabase(source, (from) =>
    withDatabase(target, async (to) => {
      const { count, sha256 } = await copyTasks(from, to)
      console.log(`copied ${count} tasks; both databases have sha256 ${sha256}`)
    })
  )
})
