import { sql } from 'drizzle-orm'
import { clientOf, expectProblem, onEachDatabase, rowsOf } from '../../support/api.js'
import { JSON_TYPE, refusesBrokenBodies, refusesUnknownIds } from '../../support/refusals.js'

onEachDatabase(async (t, app) => {
  for (const method of ['PATCH', 'PUT']) {
    await t.test(method, async (t) => {
      const alice = await clientOf(app, 'alice')
      const create = async (task: object = {}) => (await alice('POST', '', { title: 'a', ...task })).json
      const bystander = await create({ title: 'bystander' })

      for (const [changes, expected] of [
        [{ title: 'b' }, { title: 'b' }],
        [{ description: 'b' }, { description: 'b' }],
        [{ description: '' }, { description: '' }],
        [{ description: null }, { description: null }],
        [{ completed: true }, { completed: true }],
        [{ completed: false }, { completed: false }],
        [
          { title: 'b', description: null, completed: false },
          { title: 'b', description: null, completed: false }
        ],
        [
          { title: 'b', priority: 'high', id: 'x', user_id: 'bob', created_at: null, updated_at: 1 },
          { title: 'b' }
        ]
      ] as const) {
        for (const completed of [false, true]) {
          t.test(
            `200 for ${JSON.stringify(changes)} on a ${completed ? 'completed' : 'pending'} task, and other fields stay`,
            async (t) => {
              const before = await create({ description: 'text', completed })
              const { status, json } = await alice(method, `/${before.id}`, changes)
              t.equal(status, 200)
              const is = 'completed' in expected ? expected.completed : completed
              t.strictSame(json, {
                ...before,
                ...expected,
                completed_at: is ? (completed ? before.completed_at : json.updated_at) : null,
                updated_at: json.updated_at
              })
              t.ok(json.updated_at > before.updated_at, 'updated_at grew')
              t.strictSame((await alice('GET', `/${before.id}`)).json, json)
              t.strictSame((await alice('GET', `/${bystander.id}`)).json, bystander)
            }
          )
        }
      }

      t.test('updated_at increases with every update, however quick', async (t) => {
        const { id, updated_at } = await create()
        const seen = [updated_at]
        for (let i = 0; i < 30; i++) {
          seen.push((await alice(method, `/${id}`, { title: 'same' })).json.updated_at)
        }
        const atOnce = Array.from({ length: 30 }, () => alice(method, `/${id}`, { title: 'same' }))
        const concurrent = (await Promise.all(atOnce)).map(({ json }) => json.updated_at).sort()
        const all = [...seen, ...concurrent]
        t.strictSame([...new Set(all)].sort(), all)
      })

      t.test('updated_at never decreases, even after the clock was set back', async (t) => {
        const { id } = await create()
        const future = '2999-12-31T23:59:59.000Z'
        await app.db.withAdminConnection((orm) =>
          orm.execute(sql`update tasks set updated_at = ${future} where id = ${id}`)
        )
        const { json } = await alice(method, `/${id}`, { completed: true })
        t.equal(json.updated_at, '2999-12-31T23:59:59.001Z')
        t.equal(json.completed_at, json.updated_at)
      })

      t.test('completed_at is the time when completed last became true', async (t) => {
        const { id } = await create()
        const set = async (completed: boolean) => (await alice(method, `/${id}`, { completed })).json
        const first = await set(true)
        t.equal(first.completed_at, first.updated_at)
        const again = await set(true)
        t.equal(again.completed_at, first.completed_at)
        t.equal((await set(false)).completed_at, null)
        const last = await set(true)
        t.equal(last.completed_at, last.updated_at)
        t.ok(last.completed_at > first.completed_at)
      })

      t.test('422 with every error, and nothing changes', async (t) => {
        const { id } = await create()
        const before = await rowsOf(app)
        const none = [['', 'At least one of title, description, and completed is required']]
        for (const [body, errors] of [
          [{}, none],
          [{ priority: 'high' }, none],
          [{ status: 'completed', completed_at: null }, none],
          ['{"__proto__": {"title": "b"}}', none],
          ['{"constructor": {"prototype": {"title": "b"}}}', none],
          [undefined, [['', 'The body must be a JSON object']]],
          [{ title: null }, [['/title', 'title must be text']]],
          [
            { title: ' \u3000\t', description: 'a\0', completed: null },
            [
              ['/title', 'title must not be blank'],
              ['/description', 'description must not contain NUL characters or lone surrogates'],
              ['/completed', 'completed must be true or false']
            ]
          ]
        ] as const) {
          const answer = await alice(method, `/${id}`, body, JSON_TYPE)
          expectProblem(t, answer, 'validation_failed', JSON.stringify(body))
          t.strictSame(
            answer.json.errors,
            errors.map(([path, message]) => ({ path, message }))
          )
        }
        t.strictSame(await rowsOf(app), before)
      })

      refusesUnknownIds(t, alice, method, '', { title: 'b' })
      refusesBrokenBodies(t, app, alice, method, `/${bystander.id}`)
    })
  }
})
