import { tasks } from '../../db/schema.js'
import { deleteUser } from '../../db/tasks.js'
import { rowsOf, startApp } from '../support/api.js'
import { KINDS, migratedDatabase, sqlClient } from '../support/databases.js'
import { until } from '../support/process.js'
import t from '../support/tap.js'

/** Ids in ascending order. */
const IDS = [1, 2, 3].map((n) => `01890000-0000-7000-8000-00000000000${n}`)

const taskOf = (user_id: string, id: string) => ({ user_id, id, title: `of ${user_id}`, completed: false })

for (const kind of KINDS) {
  t.test(`${kind}: another user's task stays, even with the same id`, async (t) => {
    const app = await startApp(t, kind)
    const others = ['Alice', 'alice ', 'alic', 'bob', 'a%', '_____']
    await app.db.withAdminConnection((orm) =>
      orm.insert(tasks).values(['alice', ...others].flatMap((user) => IDS.map((id) => taskOf(user, id))))
    )
    const before = await rowsOf(app)
    t.strictSame(await app.db.withAdminConnection((orm) => deleteUser(orm, 'alice')), { tasks: 3, keys: 0 })
    const ofOthers = before.filter(({ user_id }) => user_id !== 'alice')
    t.equal(ofOthers.length, others.length * IDS.length)
    t.same(new Set(await rowsOf(app)), new Set(ofOthers))
    t.strictSame(await app.db.withAdminConnection((orm) => deleteUser(orm, "' or true --")), {
      tasks: 0,
      keys: 0
    })
  })
}

t.test("while the user's other requests are running", async (t) => {
  const url = await migratedDatabase(t)
  const app = await startApp(t, 'postgres', { DATABASE_URL: url })
  const [watcher, request] = [sqlClient(t, url), sqlClient(t, url)]
  const isWaiting = async () => {
    const waiting = await watcher`
      select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    return waiting.length === 1
  }

  t.test('it waits for a change that locks several tasks, and deletes the result', async (t) => {
    // The table has the tasks in descending order, so a deletion without a sort would lock them in that order.
    for (const id of IDS.toReversed()) await request`insert into tasks ${request(taskOf('alice', id))}`
    await request`update tasks set title = 'changed once' where id = ${IDS[0] as string}`
    let deletion: ReturnType<typeof deleteUser> | undefined
    await request.begin(async (sql) => {
      await sql`update tasks set title = 'changed' where user_id = 'alice' and id = ${IDS[0] as string}`
      deletion = app.db.withAdminConnection((orm) => deleteUser(orm, 'alice'))
      await until(isWaiting)
      for (const id of IDS.slice(1)) {
        const changed =
          await sql`update tasks set title = 'changed' where user_id = 'alice' and id = ${id} returning id`
        t.equal(changed.length, 1, 'no deadlock')
      }
    })
    t.strictSame(await deletion, { tasks: 3, keys: 0 })
    t.strictSame(await rowsOf(app), [])
  })

  t.test(
    "it does not wait for another user's change, and keeps tasks that are created after its start",
    async (t) => {
      await request`insert into tasks ${request([taskOf('alice', IDS[0] as string), taskOf('bob', IDS[0] as string)])}`
      await request.begin(async (sql) => {
        await sql`update tasks set title = 'changed' where user_id = 'bob'`
        await sql`insert into tasks ${sql(taskOf('alice', IDS[1] as string))}`
        const deleted = await app.db.withAdminConnection((orm) => deleteUser(orm, 'alice'))
        t.strictSame(deleted, { tasks: 1, keys: 0 })
      })
      t.match(await rowsOf(app), [{ user_id: 'bob' }, { user_id: 'alice', id: IDS[1] }])
    }
  )
})
