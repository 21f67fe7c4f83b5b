import { sql } from 'drizzle-orm'
import { clientOf, onEachDatabase } from '../../support/api.js'
import { refusesUnknownIds } from '../../support/refusals.js'

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const { json: task } = await alice('POST', '', { title: 'a', description: 'b', completed: true })

  t.test('200 with the task', async (t) => {
    const { status, headers, json } = await alice('GET', `/${task.id}`)
    t.equal(status, 200)
    t.equal(headers['content-type'], 'application/json; charset=utf-8')
    t.strictSame(json, task)
  })

  t.test('200 with an id in any case', async (t) => {
    t.strictSame((await alice('GET', `/${task.id.toUpperCase()}`)).json, task)
  })

  t.test('a date that the API does not know fails no other request', async (t) => {
    const { json: odd } = await alice('POST', '', { title: 'changed by another program' })
    await app.db.withAdminConnection((orm) =>
      orm.execute(sql`update tasks set created_at = 'infinity' where id = ${odd.id}`)
    )
    const answers = await Promise.all([odd, task, odd, task].map(({ id }) => alice('GET', `/${id}`)))
    t.strictSame(
      answers.map(({ json }) => json.title),
      [odd.title, task.title, odd.title, task.title]
    )
  })

  refusesUnknownIds(t, alice, 'GET', '')
})
