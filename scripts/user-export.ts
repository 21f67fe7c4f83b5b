import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { taskRepository } from '../db/tasks.js'
import { jsonPieces } from '../routes/tasks/json-array.js'
import { Task } from '../routes/tasks/schemas.js'
import { runUserCommand } from './database.js'

/** The fields of the API's answers, in their order. */
const FIELDS = Object.keys(Task.properties)

// npm run -s user:export -- alice: prints alice's list in the API's format. The number of tasks goes to stderr.
await runUserCommand('user:export', async (db, user) => {
  const list = await taskRepository(db).list(user)
  let count = 0
  const pieces = jsonPieces(Array.isArray(list) ? [list] : list, (batch) => {
    count += batch.length
    return JSON.stringify(batch, FIELDS)
  })
  await pipeline(Readable.from(pieces), process.stdout, { end: false })
  process.stdout.write('\n')
  console.error(`${count} tasks of ${JSON.stringify(user)}`)
})
