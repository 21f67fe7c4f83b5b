import { clientOf, expectProblem, onEachDatabase } from '../../support/api.js'
import { JSON_TYPE, refusesBrokenBodies, refusesUnknownIds } from '../../support/refusals.js'

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const create = async () => (await alice('POST', '', { title: 'a' })).json
  const kept = await create()

  t.test('204 without a body, and only this task is deleted', async (t) => {
    const { id } = await create()
    const { status, headers, text } = await alice('DELETE', `/${id}`)
    t.equal(status, 204)
    t.equal(text, '')
    t.notOk('content-type' in headers || 'content-length' in headers, 'nothing describes a body')
    t.equal((await alice('GET', `/${id}`)).status, 404)
    t.strictSame((await alice('GET')).json, [kept])
  })

  t.test('404 the second time', async (t) => {
    const { id } = await create()
    await alice('DELETE', `/${id}`)
    expectProblem(t, await alice('DELETE', `/${id}`), 'not_found')
  })

  t.test('204 exactly once for many concurrent deletions', async (t) => {
    const { id } = await create()
    const answers = await Promise.all(Array.from({ length: 20 }, () => alice('DELETE', `/${id}`)))
    t.equal(answers.filter(({ status }) => status === 204).length, 1)
    t.equal(answers.filter(({ status }) => status === 404).length, 19)
  })

  for (const [what, body, headers] of [
    ['an empty body', '', {}],
    ['an empty body that says it is JSON', '', JSON_TYPE],
    ['an empty body that says it is text', '', { 'content-type': 'text/plain' }],
    ['a JSON body, which means nothing', '{"title":1}', JSON_TYPE]
  ] as const) {
    t.test(`204 with ${what}`, async (t) => {
      const { id } = await create()
      t.equal((await alice('DELETE', `/${id}`, body, headers)).status, 204)
      t.equal((await alice('GET', `/${id}`)).status, 404)
    })
  }

  refusesUnknownIds(t, alice, 'DELETE', '')
  refusesBrokenBodies(t, app, alice, 'DELETE', `/${kept.id}`)
})
