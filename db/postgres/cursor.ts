import { DatabaseUnavailable } from '../errors.js'
import { isOutage } from '../sqlstate.js'
import { type Connection, STATEMENT_MS, TICK_MS } from './deadline-session.js'
import type { Pool } from './pool.js'
import { Turns } from './turns.js'

/** Number of rows of the first batch. */
export const FIRST_ROWS = 50
/**
 * Most rows of a batch. With 100, long lists of short texts take 1.3 × as long. After short texts, all 200 rows can have the
 * longest texts, which take 8 MB.
 */
const MAX_ROWS = 200
/** The next batch has as many rows as had this many UTF-16 code units of text in the last one. */
const BATCH_TEXTS = 524_288
/** Most text that is used at once, in UTF-16 code units, because the user makes copies of it. */
const SLICE_TEXTS = 131_072
/** Most cursors, however large the pool is: each holds up to two batches. */
const MAX_CURSORS = 10
/** Most lists of one user that wait. Waiting lists count as statements without an answer, of which all users share a number. */
const MAX_WAITING = 50

/**
 * Reads results that are too long for the memory in batches, all from one snapshot. A cursor keeps its connection until
 * the end, even if the client reads slowly. So cursors may use at most half of the pool, and 10 connections. One user may use
 * half of these, but at least one. So if there are several, clients of one user that do not read leave some to others.
 *
 * @throws DatabaseUnavailable if no connection is free in time, a batch is late, or too many lists of the user wait
 */
export function openCursors(pool: Pool) {
  const maxCursors = Math.min(MAX_CURSORS, Math.floor(pool.max / 2))
  const turns = new Turns(maxCursors, Math.max(1, Math.floor(maxCursors / 2)))

  async function takeTurn(user: string, until: number): Promise<void> {
    if (turns.waitingOf(user) >= MAX_WAITING) throw new DatabaseUnavailable('overload')
    await new Promise<void>((resolve, reject) => {
      const cancel = deadline(until, () => {
        leave()
        pool.observed.emit('timedOut', 'waiting')
        reject(new DatabaseUnavailable('timeout'))
      })
      const leave = turns.take(user, () => {
        cancel()
        resolve()
      })
    })
  }

  /** Reads on a connection of its own. Until the first batch arrives, it may start again on another one. */
  async function* read(text: string, parameters: unknown[], until: number): AsyncGenerator<unknown[]> {
    for (;;) {
      const session = await pool.reserve(until)
      let isFirst = true
      let isDone = false
      try {
        if (session.cancelling) await inTime(session.cancelling, until)
        for await (const batch of batchesOf(session.connection, text, parameters, until)) {
          isFirst = false
          yield batch
        }
        isDone = true
        return
      } catch (error) {
        if (!isFirst || !session.canRetry(error)) throw error
      } finally {
        if (isDone) pool.release(session)
        else {
          // The rest of the result must not reach the connection's next statement. After an error, the driver would number
          // that statement's rows from where this one failed.
          void session.connection.cancel()
          session.close('list')
        }
      }
    }
  }

  return {
    /** The number of cursors in the queue. */
    get waiting(): number {
      return turns.waiting
    },
    async *stream(text: string, parameters: unknown[], user: string): AsyncGenerator<unknown[]> {
      // The queue, the connection and the first batch share one deadline, because the request waits for all three.
      const until = performance.now() + STATEMENT_MS
      await takeTurn(user, until)
      try {
        yield* read(text, parameters, until)
      } catch (error) {
        if (error instanceof DatabaseUnavailable || !isOutage(error)) throw error
        throw new DatabaseUnavailable('connection', { cause: error })
      } finally {
        turns.end(user)
      }
    }
  }
}

/**
 * Yields the batches of a result in slices, and fetches the next batch while one is used.
 *
 * The driver's own iterator is not used: if the connection fails between two batches, it ends without an error.
 */
async function* batchesOf(
  connection: Connection,
  text: string,
  parameters: unknown[],
  until: number
): AsyncGenerator<unknown[]> {
  let batch: { rows: unknown[]; next: (size: number) => void } | undefined
  let ended = false
  let failure: unknown
  let wake = () => {}
  connection
    .cursor(text, parameters, FIRST_ROWS, (rows) => {
      return new Promise<number>((next) => {
        batch = { rows, next }
        wake()
      })
    })
    .then(
      () => {
        ended = true
      },
      (error) => {
        failure = error
      }
    )
    .then(() => wake())

  for (let latest = until; ; latest = performance.now() + STATEMENT_MS) {
    if (batch === undefined && !ended && failure === undefined) {
      const woken = new Promise<void>((resolve) => {
        wake = resolve
      })
      await inTime(woken, latest)
    }
    if (failure !== undefined) throw failure
    if (batch === undefined) return
    const { rows, next }: { rows: unknown[]; next: (size: number) => void } = batch
    batch = undefined
    next(rowsAfter(rows))
    yield* slicesOf(rows)
  }
}

function* slicesOf(rows: unknown[]): Generator<unknown[]> {
  let from = 0
  let length = 0
  for (const [at, row] of rows.entries()) {
    const added = lengthOf(row)
    length += added
    if (length > SLICE_TEXTS && at > from) {
      yield rows.slice(from, at)
      from = at
      length = added
    }
  }
  if (rows.length > 0) yield rows.slice(from)
}

/** The number of rows of the next batch. */
function rowsAfter(batch: unknown[]): number {
  const length = batch.reduce<number>((sum, row) => sum + lengthOf(row), 1)
  return Math.max(1, Math.min(MAX_ROWS, Math.floor((BATCH_TEXTS * batch.length) / length)))
}

/** The length of a row's texts, in UTF-16 code units. */
function lengthOf(row: unknown): number {
  let length = 0
  for (const value of Object.values(row as object)) if (typeof value === 'string') length += value.length
  return length
}

/** @throws DatabaseUnavailable if the promise is not fulfilled by this time, as `performance.now()` */
async function inTime(promise: Promise<unknown>, until: number): Promise<void> {
  let cancel = () => {}
  const late = new Promise<never>((_, reject) => {
    cancel = deadline(until, () => reject(new DatabaseUnavailable('timeout')))
  })
  await Promise.race([promise, late]).finally(cancel)
}

/**
 * Calls `onMissed` after this time, as `performance.now()`. If this process was paused until then, what has arrived is read
 * first.
 *
 * @returns a function that cancels it
 */
function deadline(at: number, onMissed: () => void): () => void {
  let timer = setTimeout(
    () => {
      timer = setTimeout(onMissed, TICK_MS)
    },
    Math.max(0, at - performance.now())
  )
  return () => clearTimeout(timer)
}
