import { deleteUser } from '../db/tasks.js'
import { loadDatabaseConfig } from '../src/config.js'
import { runCommand, userArgument } from './command.js'
import { withDatabase } from './database.js'

// npm run -s user:delete -- alice: deletes everything that is stored about alice, without a question, and prints counts.
await runCommand(async () => {
  const user = userArgument('user:delete')
  await withDatabase(loadDatabaseConfig(process.env), async (db) => {
    const { tasks, keys } = await db.withAdminConnection((orm) => deleteUser(orm, user))
    console.log(`deleted ${tasks} tasks of ${JSON.stringify(user)}, ${keys} with an idempotency key`)
  })
})
