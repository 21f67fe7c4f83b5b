import { setTimeout as sleep } from 'node:timers/promises'
import { openDatabase } from '../../../db/index.js'
import { migrate } from '../../../db/migrate.js'
import { taskRepository } from '../../../db/tasks.js'
import { emptyDatabase, sqlClient } from '../../support/databases.js'
import t from '../../support/tap.js'

const USERS = Array.from({ length: 30 }, (_, n) => `user-${n}`)

// While the driver retried a statement it sent those behind it, and rows went to the wrong statements (retry() in the
// driver's connection.js). A rolling deployment is enough to cause this.
t.test('all users get their own tasks without errors while the type of a column changes', async (t) => {
  const url = await emptyDatabase(t)
  const db = await openDatabase({ kind: 'postgres', url })
  t.teardown(() => db.close())
  await db.withAdminConnection(migrate)
  const tasks = taskRepository(db)
  const observer = sqlClient(t, url)
  const own = new Map<string, string>()
  for (const user of USERS) own.set(user, (await tasks.create(user, { title: user })).id)

  const wrong: unknown[] = []
  let answers = 0
  let isDone = false
  const reader = async (user: string, n: number) => {
    while (!isDone) {
      const [task] =
        n % 4 === 0
          ? ((await tasks.list(user)) as { user_id: string }[])
          : n % 4 === 1
            ? [await tasks.toggle(user, own.get(user) as string)]
            : [await tasks.get(user, own.get(user) as string)]
      answers++
      if ((task as { user_id?: string } | undefined)?.user_id !== user) wrong.push(task)
      await sleep(n % 5)
    }
  }
  const readers = Promise.all(USERS.map(reader))
  readers.catch(() => {
    isDone = true
  })
  for (let round = 0; round < 12 && !isDone; round++) {
    const before = answers
    await observer.unsafe(`alter table tasks alter title type ${round % 2 ? 'text' : 'varchar(300)'}`)
    while (!isDone && answers < before + 2 * USERS.length) await sleep(5)
  }
  isDone = true
  await readers
  t.strictSame(wrong, [])
})
