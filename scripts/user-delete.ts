import { sql } from 'drizzle-orm'
import { deleteUser } from '../db/tasks.js'
import { runUserCommand } from './database.js'

/** True if the table from before db/partition.sql is still there. */
const UNPARTITIONED = sql<boolean>`to_regclass('tasks_unpartitioned') is not null`

// npm run -s user:delete -- alice: deletes everything that is stored about alice, without a question, and prints counts.
await runUserCommand('user:delete', async (db, user) => {
  await db.withAdminConnection(async (orm) => {
    const { tasks, keys } = await deleteUser(orm, user)
    console.log(`deleted ${tasks} tasks of ${JSON.stringify(user)}, ${keys} with an idempotency key`)
    const [left] = await orm.select({ is: UNPARTITIONED }).from(sql`(select) as nothing`)
    if (left?.is) {
      console.error('The table tasks_unpartitioned may still have tasks of this user: drop it.')
    }
  })
})
