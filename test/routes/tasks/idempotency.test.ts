import fc from 'fast-check'
import { clientOf, onEachDatabase } from '../../support/api.js'

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const bob = await clientOf(app, 'bob')
  const create = (key: string, body: unknown, client = alice) =>
    client('POST', '', body, { 'idempotency-key': key })
  const titles = async () => (await alice('GET')).json.map((task: { title: string }) => task.title)

  t.afterEach(async () => {
    for (const client of [alice, bob]) {
      for (const task of (await client('GET')).json) await client('DELETE', `/${task.id}`)
    }
  })

  t.test('the same key and body return the same task, with Idempotency-Replayed', async (t) => {
    const first = await create('k1', { title: 'Buy milk' })
    const second = await create('k1', { title: 'Buy milk' })
    t.strictSame([first.status, first.headers['idempotency-replayed']], [201, undefined])
    t.strictSame([second.status, second.headers['idempotency-replayed']], [201, 'true'])
    t.equal(second.text, first.text)
    t.equal(second.headers.location, first.headers.location)
    t.equal(second.headers.etag, first.headers.etag)
    t.strictSame(await titles(), ['Buy milk'])
  })

  t.test('a missing field equals its default, and unknown fields are ignored', async (t) => {
    const first = await create('k2', { title: 'Buy milk' })
    for (const same of [
      { title: 'Buy milk', description: null },
      { completed: false, title: 'Buy milk' },
      { title: 'Buy milk', priority: 1 }
    ]) {
      t.equal((await create('k2', same)).json.id, first.json.id, JSON.stringify(same))
    }
  })

  t.test('the same key with another body is refused, and creates nothing', async (t) => {
    await create('k3', { title: 'Buy milk', description: 'a' })
    for (const other of [
      { title: 'Buy bread', description: 'a' },
      { title: 'Buy milk', description: 'b' },
      { title: 'Buy milk' },
      { title: 'Buy milk', description: 'a', completed: true }
    ]) {
      const { status, json } = await create('k3', other)
      t.strictSame([status, json.code], [422, 'idempotency_key_reused'], JSON.stringify(other))
    }
    t.strictSame(await titles(), ['Buy milk'])
  })

  t.test('a replay returns the current state of the task, and does not change it', async (t) => {
    const { json } = await create('k4', { title: 'Buy milk' })
    const updated = await alice('PATCH', `/${json.id}`, { title: 'Buy bread', completed: true })
    const replayed = await create('k4', { title: 'Buy milk' })
    t.equal(replayed.text, updated.text)
    t.equal(replayed.headers.etag, '"2"')
    t.equal((await alice('GET', `/${json.id}`)).headers.etag, '"2"')
  })

  t.test('users may have equal keys', async (t) => {
    const hers = await create('k5', { title: 'Buy milk' })
    const his = await create('k5', { title: 'Sell milk' }, bob)
    t.strictSame([his.status, his.headers['idempotency-replayed']], [201, undefined])
    t.not(his.json.id, hers.json.id)
    t.strictSame(await titles(), ['Buy milk'])
  })

  t.test('a key is free again after its task is deleted', async (t) => {
    const first = await create('k6', { title: 'Buy milk' })
    await alice('DELETE', `/${first.json.id}`)
    const second = await create('k6', { title: 'Anything' })
    t.strictSame([second.status, second.headers['idempotency-replayed']], [201, undefined])
    t.not(second.json.id, first.json.id)
  })

  t.test('a refused request does not use its key', async (t) => {
    t.equal((await create('k7', { title: '' })).status, 422)
    t.equal((await create('k7', { title: 'Buy milk' })).status, 201)
  })

  t.test('a key has 1 to 255 visible ASCII characters, and is case-sensitive', async (t) => {
    t.equal((await create('x'.repeat(255), { title: 'long' })).status, 201)
    t.equal((await create('"!~"', { title: 'odd' })).status, 201)
    t.equal((await create('case', { title: 'lower' })).status, 201)
    t.equal((await create('CASE', { title: 'upper' })).status, 201)
    for (const key of ['', 'x'.repeat(256), 'a b', 'a\tb', '\xe4']) {
      const { status, json } = await create(key, { title: 'refused' })
      t.match(
        [status, json.code, json.errors],
        [422, 'validation_failed', [{ path: '/idempotency-key' }]],
        key
      )
    }
    t.strictSame(await titles(), ['upper', 'lower', 'odd', 'long'])
  })

  t.test('without a key every request creates a task', async (t) => {
    await alice('POST', '', { title: 'Buy milk' })
    await alice('POST', '', { title: 'Buy milk' })
    t.strictSame(await titles(), ['Buy milk', 'Buy milk'])
  })

  t.test('50 concurrent requests with one key create one task', async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.uuid(), fc.boolean(), async (key, completed) => {
        const body = { title: key, completed }
        const answers = await Promise.all(Array.from({ length: 50 }, () => create(key, body)))
        const tasks = (await alice('GET')).json.filter((task: { title: string }) => task.title === key)
        return (
          tasks.length === 1 &&
          answers.every(({ status, json }) => status === 201 && json.id === tasks[0].id) &&
          answers.filter(({ headers }) => headers['idempotency-replayed'] !== 'true').length === 1
        )
      }),
      { numRuns: 10 }
    )
    t.pass('ten keys')
  })

  t.test(
    '50 concurrent requests with one key and two bodies create one task, and the other body is refused',
    async (t) => {
      const answers = await Promise.all(
        Array.from({ length: 50 }, (_, i) => create('k8', { title: `${i % 2}` }))
      )
      const statuses = answers.map(({ status }) => status)
      t.strictSame(
        [statuses.filter((s) => s === 201).length, statuses.filter((s) => s === 422).length],
        [25, 25]
      )
      t.equal((await titles()).length, 1)
    }
  )
})
