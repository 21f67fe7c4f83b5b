import { mock } from 'node:test'
import { jsonArray } from '../../../routes/tasks/json-array.js'
import t from '../../support/tap.js'

const batches = [[{ title: '\u{1f600}'.repeat(100_000) }, { title: 'short' }], [{ title: 'next' }]]

async function* rows() {
  yield* batches
}

t.test('a batch is sent in parts of at most 64 KiB', async (t) => {
  const parts: Buffer[] = []
  for await (const part of await jsonArray(rows(), JSON.stringify)) parts.push(part)
  t.strictSame(JSON.parse(Buffer.concat(parts).toString()), batches.flat())
  t.ok(parts.length > 6)
  t.strictSame(
    parts.filter(({ length }) => length > 65_536),
    []
  )
  // A view would keep the whole batch in memory.
  t.ok(parts.every(({ buffer }) => buffer.byteLength <= 65_536))
})

t.test('each part has a timeout of its own', async (t) => {
  mock.timers.enable({ apis: ['setTimeout', 'setImmediate'] })
  t.teardown(() => mock.timers.reset())
  const parts: Buffer[] = []
  for await (const part of await jsonArray(rows(), JSON.stringify)) {
    parts.push(part)
    if (parts.length <= 4) mock.timers.tick(20_000)
  }
  t.strictSame(JSON.parse(Buffer.concat(parts).toString()), batches.flat())

  const unread = await jsonArray(rows(), JSON.stringify)
  unread.read(0)
  await Promise.resolve()
  mock.timers.tick(30_000)
  await t.rejects(unread.toArray(), { message: 'the client did not read the list in time' })
})

t.test('a part that is read after a pause is in time', async (t) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const stream = await jsonArray(rows(), JSON.stringify)
  stream.once('readable', () => {
    // The timers run first, and then what has happened meanwhile.
    mock.timers.tick(40_000)
    stream.read()
  })
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
  t.equal(stream.errored, null)
  stream.destroy()
})
