import { clientOf, expectProblem, onEachDatabase } from '../../support/api.js'

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const bob = await clientOf(app, 'bob')

  t.test('200 with an empty array when the user has no tasks', async (t) => {
    await bob('POST', '', { title: "bob's" })
    const { status, headers, text } = await alice('GET')
    t.equal(status, 200)
    t.equal(headers['content-type'], 'application/json; charset=utf-8')
    t.equal(text, '[]')
  })

  t.test('200 with every task of the user, newest first', async (t) => {
    const created = []
    for (let i = 0; i < 20; i++) {
      created.unshift((await alice('POST', '', { title: `${i}`, completed: i % 3 === 0 })).json)
    }
    t.strictSame((await alice('GET')).json, created)
    const changed = (await alice('PATCH', `/${created[10].id}`, { title: 'changed' })).json
    t.strictSame((await alice('GET')).json, created.with(10, changed), 'a change moves nothing')
  })

  t.test('200 with the newest first, even if they were created within one millisecond', async (t) => {
    const stopped = Date.now() + 1
    const clock = t.intercept(Date, 'now', { value: () => stopped })
    const ids: string[] = []
    for (let i = 0; i < 50; i++) ids.unshift((await alice('POST', '', { title: `${i}` })).json.id)
    clock.restore()
    t.equal(new Set(ids.map((id) => id.slice(0, 13))).size, 1, 'one millisecond')
    const listed = (await alice('GET')).json.map(({ id }: { id: string }) => id)
    t.strictSame(listed.slice(0, 50), ids)
  })

  t.test('200 with only the tasks of the given status', async (t) => {
    const all: { completed: boolean }[] = (await alice('GET')).json
    for (const [query, expected] of [
      ['', all],
      ['?', all],
      ['?status=all', all],
      ['?status=', all],
      ['?status', all],
      ['?status=pending', all.filter(({ completed }) => !completed)],
      ['?status=completed', all.filter(({ completed }) => completed)],
      ['?status=%63ompleted', all.filter(({ completed }) => completed)],
      ['?priority=high&limit=1&status=completed', all.filter(({ completed }) => completed)]
    ] as const) {
      t.ok(expected.length > 0)
      t.strictSame((await alice('GET', query)).json, expected, query)
    }
  })

  t.test('422 for any other status, with path and message', async (t) => {
    for (const query of [
      '?status=done',
      '?status=Completed',
      '?status=%20all',
      '?status=all%00',
      '?status=%zz',
      '?status=all&status=all',
      '?status=&status=',
      '?status=&status=pending',
      '?status=null',
      '?status=pending&status=completed'
    ]) {
      const answer = await alice('GET', query)
      expectProblem(t, answer, 'validation_failed', query)
      t.match(answer.json.errors[0], { path: '/status', message: /must be/ })
    }
  })
})
