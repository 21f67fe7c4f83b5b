import { clientOf, onEachDatabase } from '../../support/api.js'

const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')

  t.test('201 with the task and where it is', async (t) => {
    const { status, headers, json } = await alice('POST', '', { title: 'Buy milk' })
    t.equal(status, 201)
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
    t.equal(headers.location, `/api/alice/tasks/${json.id}`)
    t.strictSame((await alice('GET', headers.location)).json, json)
  })
})
