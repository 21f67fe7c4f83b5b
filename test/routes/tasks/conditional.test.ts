import fc from 'fast-check'
import { type Answer, clientOf, onEachDatabase } from '../../support/api.js'

const NOBODY = '01a1fd44-d086-7681-8494-396105ac4a51'

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const bob = await clientOf(app, 'bob')
  const newTask = async () => (await alice('POST', '', { title: 'Buy milk' })).json.id as string
  const version = async (id: string) => (await alice('GET', `/${id}`)).headers.etag

  /** Every way to change one task. */
  const changes: Record<string, (id: string, headers: Record<string, string>) => Promise<Answer>> = {
    PATCH: (id, headers) => alice('PATCH', `/${id}`, { title: 'Buy bread' }, headers),
    PUT: (id, headers) => alice('PUT', `/${id}`, { completed: true }, headers),
    toggle: (id, headers) => alice('PATCH', `/${id}/complete`, undefined, headers),
    set: (id, headers) => alice('PATCH', `/${id}/complete`, { completed: false }, headers),
    DELETE: (id, headers) => alice('DELETE', `/${id}`, undefined, headers)
  }

  t.test('every answer with one task has its version as ETag, and every change increments it', async (t) => {
    const created = await alice('POST', '', { title: 'Buy milk' })
    const id = created.json.id
    t.equal(created.headers.etag, '"1"')
    t.equal((await alice('GET', `/${id}`)).headers.etag, '"1"')
    t.equal((await alice('HEAD', `/${id}`)).headers.etag, '"1"')
    t.equal((await alice('PATCH', `/${id}`, { title: 'Buy milk' })).headers.etag, '"2"', 'even to the same')
    t.equal((await alice('PUT', `/${id}`, { completed: true })).headers.etag, '"3"')
    t.equal((await alice('PATCH', `/${id}/complete`)).headers.etag, '"4"')
    t.equal((await alice('PATCH', `/${id}/complete`, { completed: false })).headers.etag, '"5"')
    t.equal(await version(id), '"5"')
    t.notOk('version' in created.json, 'the body is as it was')
  })

  t.test('a list and a deletion have no ETag', async (t) => {
    const id = await newTask()
    t.notOk((await alice('GET')).headers.etag)
    t.notOk((await alice('DELETE', `/${id}`)).headers.etag)
  })

  for (const [name, change] of Object.entries(changes)) {
    t.test(`${name} succeeds if If-Match has the version or is *`, async (t) => {
      for (const tags of ['"1"', '"7", "1"', '*', 'W/"1"', '"1-gzip"']) {
        const { status } = await change(await newTask(), { 'if-match': tags })
        t.equal(status, name === 'DELETE' ? 204 : 200, tags)
      }
    })

    t.test(`${name} changes nothing and returns the current version if If-Match has another`, async (t) => {
      const id = await newTask()
      await alice('PATCH', `/${id}/complete`)
      const before = (await alice('GET', `/${id}`)).text
      for (const tags of ['"1"', '"3"', 'W/"1"', 'W/"3"', '"1-gzip"', '"x"', 'W/"x"', '"1", "3"']) {
        const { status, headers, json } = await change(id, { 'if-match': tags })
        t.strictSame([status, json.code, headers.etag], [412, 'precondition_failed', '"2"'], tags)
      }
      t.equal((await alice('GET', `/${id}`)).text, before)
      t.equal(await version(id), '"2"')
    })

    t.test(
      `${name} answers 400 to an If-Match that is no list of entity tags, and changes nothing`,
      async (t) => {
        const id = await newTask()
        const { status, json } = await change(id, { 'if-match': '1' })
        t.strictSame([status, json.code], [400, 'bad_request'])
        t.equal(await version(id), '"1"')
      }
    )

    t.test(`${name} answers 404 if the user has no such task, with any If-Match`, async (t) => {
      const foreign = (await bob('POST', '', { title: "Bob's" })).json.id
      for (const id of [NOBODY, foreign]) {
        for (const tags of ['"1"', '"2"', '*']) {
          const { status, headers } = await change(id, { 'if-match': tags })
          t.strictSame([status, headers.etag], [404, undefined], `${id} ${tags}`)
        }
      }
      t.equal((await bob('GET', `/${foreign}`)).headers.etag, '"1"')
    })
  }

  t.test('If-None-Match with the current version gets 304 without a body', async (t) => {
    const id = await newTask()
    for (const tags of ['"1"', 'W/"1"', '"1-gzip"', '"9", "1"', '*']) {
      for (const method of ['GET', 'HEAD']) {
        const { status, text, headers } = await alice(method, `/${id}`, undefined, { 'if-none-match': tags })
        t.strictSame([status, text, headers.etag], [304, '', '"1"'], `${method} ${tags}`)
      }
    }
    await alice('PATCH', `/${id}/complete`)
    t.equal((await alice('GET', `/${id}`, undefined, { 'if-none-match': '"1"' })).status, 200)
    t.equal((await alice('GET', `/${id}`, undefined, { 'if-none-match': '1' })).status, 400)
    t.equal((await alice('GET', `/${NOBODY}`, undefined, { 'if-none-match': '*' })).status, 404)
  })

  t.test('of 50 concurrent changes with the same version exactly one succeeds', async (t) => {
    const id = await newTask()
    const names = ['PATCH', 'PUT', 'toggle', 'set']
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(...names), { minLength: 50, maxLength: 50 }),
        async (round) => {
          const tag = (await version(id)) as string
          const answers = await Promise.all(round.map((name) => changes[name]?.(id, { 'if-match': tag })))
          const next = `"${Number(tag.slice(1, -1)) + 1}"`
          const winners = answers.filter((answer) => answer?.status === 200)
          const losers = answers.filter((answer) => answer?.status === 412)
          return (
            winners.length === 1 &&
            losers.length === 49 &&
            answers.every((answer) => answer?.headers.etag === next) &&
            (await version(id)) === next
          )
        }
      ),
      { numRuns: 10 }
    )
    t.pass('ten rounds')
  })

  t.test('of 50 concurrent deletions with the right version one succeeds', async (t) => {
    const id = await newTask()
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => changes.DELETE?.(id, { 'if-match': '"1"' }))
    )
    t.strictSame(answers.map((answer) => answer?.status).sort(), [204, ...Array(49).fill(404)])
  })
})
