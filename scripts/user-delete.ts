import { deleteUser } from '../db/tasks.js'
import { runUserCommand } from './database.js'

// npm run -s user:delete -- alice: deletes everything that is stored about alice, without a question, and prints counts.
await runUserCommand('user:delete', async (db, user) => {
  const { tasks, keys } = await db.withAdminConnection((orm) => deleteUser(orm, user))
  console.log(`deleted ${tasks} tasks of ${JSON.stringify(user)}, ${keys} with an idempotency key`)
})
