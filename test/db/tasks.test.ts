import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { type Database, openDatabase } from '../../db/index.js'
import { migrate } from '../../db/migrate.js'
import type { Task, VersionedTask } from '../../db/schema.js'
import { LONGEST_ARRAY, type TaskChanges, taskRepository } from '../../db/tasks.js'
import { loadConfig } from '../../src/config.js'
import { databaseEnv, KINDS } from '../support/databases.js'
import t from '../support/tap.js'

const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

/** A task as in a list, without its version. */
const listed = ({ version, ...task }: VersionedTask) => task

/** In milliseconds since 1970. */
const millisecondsOf = (task: VersionedTask | undefined, name: 'updated_at' | 'completed_at') =>
  Date.parse(task?.[name] ?? '')

for (const kind of KINDS) {
  t.test(`on the ${kind} database`, async (t) => {
    const db = await openDatabase(loadConfig(await databaseEnv(t, kind)).database)
    t.teardown(() => db.close())
    await db.withAdminConnection(migrate)
    const repository = taskRepository(db)
    // Without expected versions the result is never a StaleVersion.
    type Changed = Promise<VersionedTask | undefined>
    const tasks = {
      ...repository,
      list: async (user: string, completed?: boolean) => [
        ...((await repository.list(user, completed)) as Task[])
      ],
      update: (...change: [string, string, TaskChanges]) => repository.update(...change) as Changed,
      toggle: (...change: [string, string, boolean?]) => repository.toggle(...change) as Changed
    }
    /** A new user without tasks. */
    const newUser = () => randomUUID()

    t.test('create returns the same as list and get, with defaults and timestamps', async (t) => {
      const user = newUser()
      const before = Date.now()
      const task = await tasks.create(user, { title: 'Buy milk' })
      t.match(task, {
        user_id: user,
        title: 'Buy milk',
        description: null,
        completed: false,
        completed_at: null
      })
      t.match(task.created_at, INSTANT)
      t.strictSame(task.updated_at, task.created_at)
      t.ok(Math.abs(Date.parse(task.created_at) - before) < 60_000)
      t.strictSame(await tasks.get(user, task.id), task)
      t.strictSame(await tasks.list(user), [listed(task)])

      const done = await tasks.create(user, { title: 'Sleep', description: '', completed: true })
      t.match(done, { description: '', completed: true })
      t.strictSame(done.completed_at, done.created_at)
    })

    t.test('texts are returned unchanged', async (t) => {
      const user = newUser()
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
          (await tasks.list(odd)).map(({ title }) => title),
          [odd.slice(0, 50)]
        )
      }
    })

    t.test('list is newest first, with or without a filter', async (t) => {
      const user = newUser()
      const all = []
      for (let i = 0; i < 30; i++)
        all.unshift(await tasks.create(user, { title: `${i}`, completed: i % 3 === 0 }))
      t.strictSame(await tasks.list(user), all.map(listed))
      t.strictSame(await tasks.list(user, true), all.filter(({ completed }) => completed).map(listed))
      t.strictSame(await tasks.list(user, false), all.filter(({ completed }) => !completed).map(listed))
      t.strictSame(await tasks.list(newUser()), [])
    })

    t.test('update changes only the given fields', async (t) => {
      const user = newUser()
      const cases = [
        { title: 'Bread' },
        { description: 'fresh' },
        { description: null },
        { completed: true },
        { completed: false },
        { title: 'Milk', description: '2 l', completed: true },
        {}
      ]
      for (const changes of cases) {
        const before = await tasks.create(user, { title: 'Buy', description: 'now' })
        const after = await tasks.update(user, before.id, changes)
        t.match(after, {
          ...before,
          ...changes,
          version: before.version + 1,
          updated_at: INSTANT,
          completed_at: changes.completed ? INSTANT : null
        })
        t.ok(millisecondsOf(after, 'updated_at') > millisecondsOf(before, 'updated_at'), 'updated_at goes on')
        t.strictSame(await tasks.get(user, before.id), after)
      }
    })

    t.test('completed_at is the time when completed last became true', async (t) => {
      const user = newUser()
      const { id } = await tasks.create(user, { title: 'Run' })
      const done = await tasks.toggle(user, id)
      t.equal(done?.completed, true)
      t.strictSame(done?.completed_at, done?.updated_at)
      for (const again of [
        await tasks.toggle(user, id, true),
        await tasks.update(user, id, { completed: true, title: 'Walk' })
      ]) {
        t.strictSame(again?.completed_at, done?.completed_at, 'to set it again does not move it')
      }
      for (const open of [await tasks.toggle(user, id), await tasks.toggle(user, id, false)]) {
        t.match(open, { completed: false, completed_at: null })
      }
      const redone = await tasks.update(user, id, { completed: true })
      t.ok(millisecondsOf(redone, 'completed_at') > millisecondsOf(done, 'completed_at'))
    })

    t.test('updated_at never decreases, even after the clock was set back', async (t) => {
      const user = newUser()
      const { id } = await tasks.create(user, { title: 'Wait' })
      await db.withAdminConnection((orm) =>
        orm.execute(sql`update tasks set updated_at = now() + interval '1 day' where id = ${id}`)
      )
      const ahead = await tasks.get(user, id)
      const changes = [
        await tasks.toggle(user, id),
        await tasks.update(user, id, { title: 'Go' }),
        await tasks.toggle(user, id)
      ]
      const timestamps = [ahead, ...changes].map((task) => millisecondsOf(task, 'updated_at'))
      t.strictSame(
        timestamps,
        [...new Set(timestamps)].sort((a, b) => a - b)
      )
    })

    t.test("another user's task is not found, and does not change", async (t) => {
      const [alice, bob] = [newUser(), newUser()]
      const task = await tasks.create(alice, { title: 'Private' })
      await tasks.create(bob, { title: 'Own' })
      for (const [user, id] of [
        [bob, task.id],
        [alice, randomUUID()]
      ] as const) {
        t.equal(await tasks.get(user, id), undefined)
        t.equal(await tasks.update(user, id, { title: 'Taken' }), undefined)
        t.equal(await tasks.toggle(user, id), undefined)
        t.equal(await tasks.toggle(user, id, true), undefined)
        t.equal(await tasks.delete(user, id), undefined)
      }
      t.strictSame(await tasks.list(alice), [listed(task)])
      t.equal((await tasks.list(bob)).length, 1)
    })

    t.test('delete removes one task once', async (t) => {
      const user = newUser()
      const kept = await tasks.create(user, { title: 'Keep' })
      const { id } = await tasks.create(user, { title: 'Drop' })
      const answers = await Promise.all(Array.from({ length: 5 }, () => tasks.delete(user, id)))
      t.equal(answers.filter(Boolean).length, 1)
      t.strictSame(await tasks.list(user), [listed(kept)])
    })

    t.test('no concurrent change is lost', async (t) => {
      const user = newUser()
      const { id } = await tasks.create(user, { title: 'Count' })
      const answers = await Promise.all(Array.from({ length: 51 }, () => tasks.toggle(user, id)))
      t.equal((await tasks.get(user, id))?.completed, true, 'an odd number of flips')
      t.equal(answers.filter((task) => task?.completed).length, 26)
      t.equal(
        new Set(answers.map((task) => millisecondsOf(task, 'updated_at'))).size,
        51,
        'each with a timestamp of its own'
      )

      await Promise.all([
        tasks.update(user, id, { title: 'New' }),
        tasks.update(user, id, { description: 'text' }),
        tasks.toggle(user, id, false)
      ])
      t.match(await tasks.get(user, id), { title: 'New', description: 'text', completed: false })

      const ids = await Promise.all(Array.from({ length: 200 }, () => tasks.create(user, { title: 'Many' })))
      t.equal(new Set(ids.map(({ id }) => id)).size, 200)
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
