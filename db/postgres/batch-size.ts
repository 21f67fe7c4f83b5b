/** Most writes in a transaction. More would hold too many locks, and a retry after a failure would repeat too much. */
export const MAX_BATCH_SIZE = 32
/** Fewest writes in a transaction. Fewer would save less than its two further statements cost. */
const MIN_BATCH_SIZE = 4
/** Shortest durations that are assumed for a commit and a write. Below these, this process is the limit. */
export const MIN_COMMIT_MS = 0.5
const MIN_WRITE_MS = 0.015
/** Number of concurrent batches of quick writes: one is prepared while others wait for the disk. */
const MIN_BATCHES = 3

/**
 * Computes the number of writes that may share a transaction: as many as run in the time of the commit. So a write takes
 * at most twice as long as alone, and the database waits for its disk or standby once for all of them.
 *
 * @param writeMs duration of a write without its commit
 * @param commitMs duration of a commit
 */
export function batchSize(writeMs: number, commitMs: number): number {
  const size = 1 + Math.max(commitMs, MIN_COMMIT_MS) / Math.max(writeMs, MIN_WRITE_MS)
  return size < MIN_BATCH_SIZE ? 1 : Math.min(MAX_BATCH_SIZE, Math.floor(size))
}

/**
 * Computes the number of batches that may run at the same time. Further writes wait for the next batch. Large batches need
 * few at a time, so that they become large. A slow network needs more, so that the database works meanwhile.
 *
 * @param size largest batch at present
 * @param serviceMs duration of the database's work on a batch
 * @param connections maximum number of connections in the pool
 */
export function maxBatches(
  size: number,
  serviceMs: number,
  roundTripMs: number,
  connections: number
): number {
  const working = Math.max(MIN_BATCHES, Math.ceil((2 * connections) / size))
  return Math.ceil(working * (1 + roundTripMs / Math.max(serviceMs, MIN_COMMIT_MS)))
}
