import { LONGEST_ARRAY } from '../../../db/tasks.js'
import { clientOf, onEachDatabase } from '../../support/api.js'

const titles = (tasks: { title: string }[]) => tasks.map(({ title }) => title)
const newestFirst = (count: number) => Array.from({ length: count }, (_, i) => `Task ${count - i}`)

onEachDatabase(async (t, app) => {
  await t.test('a list of any length is complete, in order, and has the same format', async (t) => {
    const alice = await clientOf(app, 'alice')
    const bob = await clientOf(app, 'bob')
    await bob('POST', '', { title: 'Not for alice' })
    const { json: created } = await alice('POST', '', { title: 'Buy milk' })
    await alice('DELETE', `/${created.id}`)
    for (const count of [LONGEST_ARRAY, LONGEST_ARRAY + 1, 1_000, 1_234]) {
      await app.db.withAdminConnection(async (orm) => {
        await orm.execute(`delete from tasks where user_id = 'alice'`)
        await orm.execute(`insert into tasks (user_id, id, title, completed, completed_at)
        select 'alice', ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'Task ' || n, n % 2 = 0, case when n % 2 = 0 then now() end
        from generate_series(1, ${count}) n`)
      })
      const { status, headers, json } = await alice('GET')
      t.equal(status, 200)
      t.equal(headers['content-type'], 'application/json; charset=utf-8')
      t.same(titles(json), newestFirst(count))
      t.same(Object.keys(json.at(-1)), Object.keys(created))
      t.same(
        titles((await alice('GET', '?status=pending')).json),
        newestFirst(count).filter((title) => Number(title.slice(5)) % 2 === 1)
      )
      t.equal((await alice('HEAD')).text, '')
    }
    t.equal((await bob('GET')).json.length, 1)
  })
})
