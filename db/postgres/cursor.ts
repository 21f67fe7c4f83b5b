import { DatabaseUnavailable } from '../errors.js'
import { isOutage } from '../sqlstate.js'
import type { Pool } from './pool.js'
import { type Connection, type Session, STATEMENT_MS } from './session.js'

/** How many rows one batch has. */
const BATCH_ROWS = 200

/**
 * Reads results that are too long for the memory, batch by batch, all from one snapshot. A cursor keeps its connection
 * until the end, however slowly the client reads, so at most half of the pool may do this at once.
 *
 * @throws DatabaseUnavailable when no connection is free and has sent the first batch in time, or a later batch is late
 */
export function openCursors(pool: Pool) {
  const most = Math.floor(pool.max / 2)
  const turns: (() => void)[] = []
  let reading = 0

  /** Waits until fewer than `most` are reading. */
  async function takeTurn(until: number): Promise<void> {
    if (reading >= most) {
      await new Promise<void>((resolve, reject) => {
        const turn = () => {
          clearTimeout(timer)
          resolve()
        }
        const timer = setTimeout(() => {
          turns.splice(turns.indexOf(turn), 1)
          pool.observed.emit('timedOut', 'waiting')
          reject(new DatabaseUnavailable('timeout'))
        }, until - performance.now())
        turns.push(turn)
      })
    } else reading++
  }

  /** Passes the turn on, or gives it back. */
  function endTurn(): void {
    const next = turns.shift()
    if (next) next()
    else reading--
  }

  return {
    /** How many wait for their turn. */
    get waiting(): number {
      return turns.length
    },
    async *stream(text: string, parameters: unknown[]): AsyncGenerator<unknown[]> {
      // One deadline for all that comes before the first batch, because the request waits for all of it.
      const until = performance.now() + STATEMENT_MS
      await takeTurn(until)
      let session: Session | undefined
      try {
        session = await pool.reserve(until)
        yield* batchesOf(session.connection, text, parameters, until)
        pool.release(session)
        session = undefined
      } catch (error) {
        if (error instanceof DatabaseUnavailable || !isOutage(error)) throw error
        throw new DatabaseUnavailable('connection', { cause: error })
      } finally {
        endTurn()
        // Failed, or ended before its time: the rest of the result must not reach the next user of the connection.
        void session?.connection.cancel()
        session?.close('list')
      }
    }
  }
}

/**
 * The batches of a result, the next one under way while one is used.
 *
 * The driver's own iterator ends as if there were no more rows when the connection fails between two batches.
 */
async function* batchesOf(
  connection: Connection,
  text: string,
  parameters: unknown[],
  until: number
): AsyncGenerator<unknown[]> {
  let batch: { rows: unknown[]; next: () => void } | undefined
  let ended = false
  let failure: unknown
  let wake = () => {}
  connection
    .cursor(text, parameters, BATCH_ROWS, (rows) => {
      return new Promise<void>((next) => {
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
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new DatabaseUnavailable('timeout')), latest - performance.now())
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    if (failure !== undefined) throw failure
    if (batch === undefined) return
    const { rows, next }: { rows: unknown[]; next: () => void } = batch
    batch = undefined
    next()
    yield rows
  }
}
