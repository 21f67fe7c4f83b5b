import { Readable } from 'node:stream'

/**
 * Timeout for each part, in milliseconds. A client is gone, or blocks on purpose, if it makes no room for one in this time.
 *
 * Linux tells of room when a third of its buffer is free. The buffer grows to 4 MB on a quick network. So a slow client there
 * must read 45 kB/s.
 */
const STALLED_MS = 30_000
/** Size of a part, in bytes. */
const PART_BYTES = 65_536
/** Timeout for a whole array, in milliseconds. 100,000 tasks have about 25 MB, so this is enough at 200 kB/s. */
const LONGEST_MS = 120_000

/**
 * Writes the rows of all batches as one JSON array. It yields a piece of text for each batch, and one for the end.
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
 * Streams the rows of all batches as one JSON array, as fast as the client reads. If a batch fails or the client is too
 * slow, the stream fails, so that the client sees that the array is incomplete.
 *
 * @param serialize makes the JSON array of one batch
 * @throws the error of the first batch: nothing was sent yet, so the caller can still answer with an error
 */
export async function jsonArray<T>(
  batches: AsyncIterable<T[]>,
  serialize: (batch: T[]) => string
): Promise<Readable> {
  const iterator = jsonPieces(batches, serialize)
  const stream = Readable.from(pieces(await iterator.next()), { objectMode: false })
  // This ends the batches when the stream closes early. `pieces` cannot do it, because it may never have started.
  stream.once('close', () => void iterator.return(undefined))
  const tooSlow = () => stream.destroy(new Error('the client did not read the list in time'))

  // As a variable of the outer function, the first piece would stay in memory until the stream closes.
  async function* pieces(piece: IteratorResult<string>): AsyncGenerator<Buffer> {
    const longest = setTimeout(tooSlow, LONGEST_MS)
    let cancel = () => {}
    try {
      for (; !piece.done; piece = await iterator.next()) {
        const bytes = Buffer.from(piece.value)
        for (let at = 0; at < bytes.length; at += PART_BYTES) {
          cancel = afterReading(STALLED_MS, tooSlow)
          const part = bytes.subarray(at, at + PART_BYTES)
          // A view of longer bytes would keep all of them in memory until the client has read it.
          yield bytes.length > PART_BYTES ? Buffer.from(part) : part
          cancel()
        }
      }
    } finally {
      clearTimeout(longest)
      cancel()
    }
  }
  return stream
}

/**
 * Calls `onMissed` after this time. After a pause of the process, Node runs the timers that are due before it notices that a
 * client has read.
 *
 * @returns a function that cancels it
 */
function afterReading(milliseconds: number, onMissed: () => void): () => void {
  let check: NodeJS.Immediate | undefined
  const timer = setTimeout(() => {
    check = setImmediate(onMissed)
  }, milliseconds)
  return () => {
    clearTimeout(timer)
    clearImmediate(check)
  }
}
