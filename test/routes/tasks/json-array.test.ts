import { jsonArray } from '../../../routes/tasks/json-array.js'
import t from '../../support/tap.js'

t.test('a batch is sent in parts of at most 64 KiB, each with a timeout of its own', async (t) => {
  const batches = [[{ title: '\u{1f600}'.repeat(100_000) }, { title: 'short' }], [{ title: 'next' }]]
  async function* rows() {
    yield* batches
  }
  const parts: Buffer[] = []
  for await (const part of await jsonArray(rows(), JSON.stringify)) parts.push(part)
  t.strictSame(JSON.parse(Buffer.concat(parts).toString()), batches.flat())
  t.ok(parts.length > 6)
  t.strictSame(
    parts.filter(({ length }) => length > 65_536),
    []
  )
})
