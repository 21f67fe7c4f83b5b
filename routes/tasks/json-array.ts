import { Readable } from 'node:stream'

/** A client that takes nothing for this time has gone, or means to hold what it holds. */
const STALLED_MS = 10_000
/** The longest that a client may take over a whole array: 25 MB, some 100,000 tasks, at 200 kB/s. */
const LONGEST_MS = 120_000

/**
 * The text of one JSON array of all that the batches hold, as many pieces as there are batches, and its end.
 *
 * @param serialize makes the JSON array of one batch
 */
export async function* jsonPieces<T>(
  batches: AsyncIterable<T[]> | Iterable<T[]>,
  serialize: (batch: T[]) => string
): AsyncGenerator<string> {
  let opening = '['
  for await (const batch of batches) {
    yield opening + serialize(batch).slice(1, -1)
    opening = ','
  }
  yield opening === '[' ? '[]' : ']'
}

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
  const iterator = jsonPieces(batches, serialize)
  const first = await iterator.next()
  const stream = Readable.from(pieces(), { objectMode: false })
  // Not left to the generator below, which does nothing at its end when it was never begun.
  stream.once('close', () => void iterator.return(undefined))
  const tooSlow = () => stream.destroy(new Error('the client did not read the list in time'))

  async function* pieces(): AsyncGenerator<string> {
    const longest = setTimeout(tooSlow, LONGEST_MS)
    let stalled: NodeJS.Timeout | undefined
    try {
      for (let piece = first; !piece.done; piece = await iterator.next()) {
        stalled = setTimeout(tooSlow, STALLED_MS)
        yield piece.value
        clearTimeout(stalled)
      }
    } finally {
      clearTimeout(longest)
      clearTimeout(stalled)
    }
  }
  return stream
}
