import { clientOf, expectProblem, onEachDatabase, rowsOf } from '../../support/api.js'
import { JSON_TYPE, refusesBrokenBodies } from '../../support/refusals.js'

const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')

  t.test('201 with the task and its Location', async (t) => {
    const before = Date.now()
    const { status, headers, json } = await alice('POST', '', { title: 'Buy milk' })
    t.equal(status, 201)
    t.equal(headers['content-type'], 'application/json; charset=utf-8')
    t.strictSame(Object.keys(json), [
      'id',
      'user_id',
      'title',
      'description',
      'completed',
      'completed_at',
      'created_at',
      'updated_at'
    ])
    t.match(json, {
      id: UUID_V7,
      user_id: 'alice',
      title: 'Buy milk',
      description: null,
      completed: false,
      completed_at: null,
      created_at: INSTANT,
      updated_at: json.created_at
    })
    // The database rounds to the millisecond.
    t.ok(Math.abs(Date.parse(json.created_at) - before) < 5_000, 'created now')
    t.equal(headers.location, `/api/alice/tasks/${json.id}`)
    t.strictSame((await alice('GET', headers.location)).json, json)
  })

  t.test('201 with a Location that works for every user id', async (t) => {
    for (const user of ['a/b', 'a b%20?#&é', '💡'.repeat(255)]) {
      const client = await clientOf(app, user)
      const { status, headers, json } = await client('POST', '', { title: 'a' })
      t.equal(status, 201)
      t.equal(json.user_id, user)
      t.strictSame((await client('GET', headers.location)).json, json, user)
    }
  })

  t.test('201 with a completed task, whose completed_at is its creation', async (t) => {
    const { status, json } = await alice('POST', '', { title: 'a', description: 'b', completed: true })
    t.equal(status, 201)
    t.match(json, {
      description: 'b',
      completed: true,
      completed_at: json.created_at,
      updated_at: json.created_at
    })
    t.strictSame((await alice('GET', `/${json.id}`)).json, json)
  })

  t.test('201 without fields that the client may not set', async (t) => {
    const sent = {
      title: 'a',
      id: '01890000-0000-7000-8000-000000000000',
      user_id: 'bob',
      completed_at: '2001-01-01T00:00:00.000Z',
      created_at: '2001-01-01T00:00:00.000Z',
      updated_at: '2001-01-01T00:00:00.000Z',
      priority: 'high',
      tags: ['x']
    }
    const { status, json } = await alice('POST', '', sent)
    t.equal(status, 201)
    t.not(json.id, sent.id)
    t.match(json, { user_id: 'alice', completed_at: null, updated_at: json.created_at })
    t.not(json.created_at, sent.created_at)
    t.notOk('priority' in json || 'tags' in json)
  })

  t.test('422 with every error, and nothing is created', async (t) => {
    const before = await rowsOf(app)
    for (const [body, errors] of [
      [undefined, [['', 'The body must be a JSON object']]],
      [{}, [['/title', 'title is required']]],
      [{ description: 'a', completed: false }, [['/title', 'title is required']]],
      [
        { title: '', description: 1, completed: 'true' },
        [
          ['/title', 'title must not be empty'],
          ['/description', 'description must be text or null'],
          ['/completed', 'completed must be true or false']
        ]
      ],
      [{ title: 'a'.repeat(201) }, [['/title', 'title must be at most 200 characters']]],
      [
        { title: 'a', description: 'a'.repeat(10_001) },
        [['/description', 'description must be at most 10,000 characters']]
      ],
      [{ title: 'a\0' }, [['/title', 'title must not contain NUL characters or lone surrogates']]]
    ] as const) {
      const answer = await alice('POST', '', body)
      expectProblem(t, answer, 'validation_failed')
      t.match(
        answer.json.errors,
        errors.map(([path, message]) => ({ path, message }))
      )
      t.equal(answer.json.errors.length, errors.length)
    }
    t.strictSame(await rowsOf(app), before)
  })

  t.test('422 for an empty body with a JSON content type', async (t) => {
    expectProblem(t, await alice('POST', '', '', JSON_TYPE), 'validation_failed')
  })

  refusesBrokenBodies(t, app, alice, 'POST', '')
})
