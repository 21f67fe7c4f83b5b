import { Readable } from 'node:stream'

/** A client that takes nothing for this time has gone, or means to hold what it holds. */
const STALLED_MS = 10_000
/** The longest that a client may take over a whole array: 25 MB, some 100,000 tasks, at 200 kB/s. */
const LONGEST_MS = 120_000

/**
 * One JSON array of all that the batches hold, made as fast as it is read. When a batch fails or the reader is too slow
 * the stream fails, so that nobody takes what came for the whole.
 *
 * @param serialize makes the JSON array of one batch
 * @throws what the first batch throws: as long as nothing was sent, there can be a proper answer
 */
export async function jsonArray<T>(
  batches: AsyncIterable<T[]>,
  serialize: (batch: T[]) => string
): Promise<Readable> {
  const iterator = batches[Symbol.asyncIterator]()
  const first = await iterator.next()
  const stream = Readable.from(pieces(), { objectMode: false })
  // Not left to the generator below, which does nothing at its end when it was never begun.
  stream.once('close', () => void iterator.return?.())
  const tooSlow = () => stream.destroy(new Error('the client did not read the list in time'))

  async function* pieces(): AsyncGenerator<string> {
    const longest = setTimeout(tooSlow, LONGEST_MS)
    let stalled: NodeJS.Timeout | undefined
    try {
      let opening = '['
      for (let batch = first; !batch.done; batch = await iterator.next()) {
        stalled = setTimeout(tooSlow, STALLED_MS)
        yield opening + serialize(batch.value).slice(1, -1)
        clearTimeout(stalled)
        opening = ','
      }
      yield opening === '[' ? '[]' : ']'
    } finally {
      clearTimeout(longest)
      clearTimeout(stalled)
    }
  }
  return stream
}
