import { sql } from 'drizzle-orm'
import { clientOf, expectProblem, onEachDatabase, rowsOf } from '../../support/api.js'
import { JSON_TYPE, refusesBrokenBodies, refusesUnknownIds } from '../../support/refusals.js'

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const create = async (task: object = {}) => (await alice('POST', '', { title: 'a', ...task })).json
  const toggle = (id: string, body?: unknown, headers?: Record<string, string>) =>
    alice('PATCH', `/${id}/complete`, body, headers)
  const bystander = await create({ title: 'bystander' })

  for (const [what, body, headers] of [
    ['no body', undefined, {}],
    ['no body but a Content-Type', undefined, JSON_TYPE],
    ['an empty body', '', {}],
    ['an empty body that says it is JSON', '', JSON_TYPE],
    ['an empty body that says it is text', '', { 'content-type': 'text/plain' }],
    ['{}', {}, {}],
    ['null', 'null', JSON_TYPE],
    ['null between white space', ' null\n', JSON_TYPE],
    ['unknown fields only', { done: true, tags: [] }, {}]
  ] as const) {
    t.test(`200 and flips with ${what}`, async (t) => {
      const before = await create({ description: 'b' })
      const { status, json: once } = await toggle(before.id, body, headers)
      t.equal(status, 200)
      t.strictSame(once, {
        ...before,
        completed: true,
        completed_at: once.updated_at,
        updated_at: once.updated_at
      })
      t.ok(once.updated_at > before.updated_at)
      t.strictSame((await alice('GET', `/${before.id}`)).json, once)
      const { json: twice } = await toggle(before.id, body, headers)
      t.strictSame(twice, { ...before, updated_at: twice.updated_at })
      t.ok(twice.updated_at > once.updated_at)
      t.strictSame((await alice('GET', `/${bystander.id}`)).json, bystander)
    })
  }

  for (const completed of [true, false]) {
    t.test(`200 and sets ${completed}, also when repeated`, async (t) => {
      for (const was of [true, false]) {
        const before = await create({ completed: was })
        const { json: first } = await toggle(before.id, { completed })
        const { json: again } = await toggle(before.id, { completed })
        for (const json of [first, again]) {
          t.strictSame(json, {
            ...before,
            completed,
            completed_at: completed ? (was ? before.completed_at : first.updated_at) : null,
            updated_at: json.updated_at
          })
        }
        t.ok(first.updated_at > before.updated_at && again.updated_at > first.updated_at)
        t.strictSame((await alice('GET', `/${before.id}`)).json, again)
      }
    })
  }

  t.test('101 concurrent toggles flip 101 times', async (t) => {
    const before = await create()
    const answers = await Promise.all(Array.from({ length: 101 }, () => toggle(before.id)))
    t.ok(answers.every(({ status }) => status === 200))
    t.equal(answers.filter(({ json }) => json.completed).length, 51)
    const timestamps = answers.map(({ json }) => json.updated_at)
    t.equal(new Set(timestamps).size, 101, 'updated_at differs in every answer')
    const { json } = await alice('GET', `/${before.id}`)
    t.match(json, { completed: true, completed_at: json.updated_at, updated_at: timestamps.sort().at(-1) })
    t.ok(json.updated_at > before.updated_at)
  })

  t.test('50 concurrent requests that set true complete the task once', async (t) => {
    const { id } = await create()
    const answers = await Promise.all(Array.from({ length: 50 }, () => toggle(id, { completed: true })))
    t.ok(answers.every(({ status, json }) => status === 200 && json.completed))
    t.equal(new Set(answers.map(({ json }) => json.completed_at)).size, 1, 'one completed_at')
    t.equal((await alice('GET', `/${id}`)).json.completed, true)
  })

  t.test('updated_at never decreases, even after the clock was set back', async (t) => {
    const { id } = await create()
    await app.db.withAdminConnection((orm) =>
      orm.execute(sql`update tasks set updated_at = '2999-12-31T23:59:59Z' where id = ${id}`)
    )
    const { json } = await toggle(id)
    t.equal(json.updated_at, '2999-12-31T23:59:59.001Z')
    t.equal(json.completed_at, json.updated_at)
  })

  for (const [body, path, message] of [
    ['[]', '', 'The body must be a JSON object'],
    ['"true"', '', 'The body must be a JSON object'],
    ['true', '', 'The body must be a JSON object'],
    ['"null"', '', 'The body must be a JSON object'],
    ['false', '', 'The body must be a JSON object'],
    ['0', '', 'The body must be a JSON object'],
    ['""', '', 'The body must be a JSON object'],
    ['{"completed": null}', '/completed', 'completed must be true or false'],
    ['{"completed": 1}', '/completed', 'completed must be true or false'],
    ['{"completed": "true"}', '/completed', 'completed must be true or false'],
    ['{"completed": [true]}', '/completed', 'completed must be true or false']
  ] as const) {
    t.test(`422 for ${body}, and nothing changes`, async (t) => {
      const before = await rowsOf(app)
      const answer = await toggle(bystander.id, body, JSON_TYPE)
      expectProblem(t, answer, 'validation_failed')
      t.strictSame(answer.json.errors, [{ path, message }])
      t.strictSame(await rowsOf(app), before)
    })
  }

  refusesUnknownIds(t, alice, 'PATCH', '/complete')
  refusesBrokenBodies(t, app, alice, 'PATCH', `/${bystander.id}/complete`)
})
