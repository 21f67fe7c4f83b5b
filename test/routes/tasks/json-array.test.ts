import type { Readable } from 'node:stream'
import { mock } from 'node:test'
import { jsonArray } from '../../../routes/tasks/json-array.js'
import t from '../../support/tap.js'
import { usedMemory } from '../../support/used-memory.js'

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
  // A view would keep the whole batch in memory. Node 26 makes small buffers from a pool of 65,600 bytes.
  t.ok(parts.every(({ buffer }) => buffer.byteLength < 2 * 65_536))
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

t.test('a stream that was read to its end keeps no text', async (t) => {
  // A response keeps its stream until the client has read the end.
  const streams: Readable[] = []
  const before = usedMemory()
  for (let n = 0; n < 20; n++) {
    const stream = await jsonArray(rows(), () => `["${`${n}`.padStart(1_048_576, 'x')}"]`)
    let length = 0
    for await (const part of stream) length += part.length
    t.ok(length > 2 * 1_048_576)
    streams.push(stream)
  }
  const kept = (usedMemory() - before) / streams.length
  t.ok(kept < 200_000, `${kept.toFixed()} bytes of each stream`)
})
