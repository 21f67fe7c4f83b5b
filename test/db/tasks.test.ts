import { randomUUID } from 'node:crypto'
import { type Database, openDatabase } from '../../db/index.js'
import { migrate } from '../../db/migrate.js'
import type { Task } from '../../db/schema.js'
import { LONGEST_ARRAY, taskRepository } from '../../db/tasks.js'
import { loadConfig } from '../../src/config.js'
import { databaseEnv, KINDS } from '../support/databases.js'
import t from '../support/tap.js'

for (const kind of KINDS) {
  t.test(`on the ${kind} database`, async (t) => {
    const db = await openDatabase(loadConfig(await databaseEnv(t, kind)).database)
    t.teardown(() => db.close())
    await db.withAdminConnection(migrate)
    const tasks = taskRepository(db)

    t.test('texts are returned unchanged', async (t) => {
      const user = randomUUID()
      for (const text of [
        "'; drop table tasks; --",
        '$1 \\ " %',
        ' 🦄 \u00e9 e\u0301 ',
        'line\r\nline\ttab',
        '🦄'.repeat(200)
      ]) {
        const { id } = await tasks.create(user, { title: text, description: text })
        t.match(await tasks.get(user, id), { title: text, description: text })
      }
      // A user id can be any text too.
      for (const odd of ["o'brien", 'a/b', ' ', 'ALICE', 'alice', '\u00e9', 'e\u0301', '🦄'.repeat(255)]) {
        await tasks.create(odd, { title: odd.slice(0, 50) })
        t.strictSame(
          ((await tasks.list(odd)) as Task[]).map(({ title }) => title),
          [odd.slice(0, 50)]
        )
      }
    })

    t.test('concurrent changes of different fields are all kept', async (t) => {
      const user = randomUUID()
      const { id } = await tasks.create(user, { title: 'Count' })
      await Promise.all([
        tasks.update(user, id, { title: 'New' }),
        tasks.update(user, id, { description: 'text' }),
        tasks.toggle(user, id, false)
      ])
      t.match(await tasks.get(user, id), { title: 'New', description: 'text', completed: false })
    })
  })
}

/** A database that mixes up answers: it always returns bob's rows. */
function mixedUpDatabase(count: number): Database {
  const row = { user_id: 'bob', id: '', title: 'A secret', version: 1 }
  const rows = Array.from({ length: count }, () => row)
  return {
    prepareRead: () => async () => rows,
    prepareWrite: () => async () => rows,
    prepareStream: () =>
      async function* stream() {
        yield rows
      }
  } as unknown as Database
}

t.test("another user's rows are never returned, even if the driver mixes up answers", async (t) => {
  const message = "the database answered with another user's row"
  const tasks = taskRepository(mixedUpDatabase(1))
  await t.rejects(tasks.get('alice', ''), { message })
  await t.rejects(tasks.list('alice'), { message })
  await t.rejects(tasks.create('alice', { title: 'Mine' }), { message })
  await t.rejects(tasks.createOnce('alice', 'key', { title: 'Mine' }), { message })
  await t.rejects(tasks.update('alice', '', { title: 'Mine' }), { message })
  await t.rejects(tasks.toggle('alice', ''), { message })
  const streamed = (await taskRepository(mixedUpDatabase(LONGEST_ARRAY + 1)).list(
    'alice'
  )) as AsyncIterable<unknown>
  await t.rejects(
    async () => {
      for await (const _ of streamed);
    },
    { message }
  )
})
