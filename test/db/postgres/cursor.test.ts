import { setTimeout as sleep } from 'node:timers/promises'
import { DatabaseUnavailable } from '../../../db/errors.js'
import { openCursors } from '../../../db/postgres/cursor.js'
import { STATEMENT_MS } from '../../../db/postgres/deadline-session.js'
import { emptyDatabase, sqlClient } from '../../support/databases.js'
import { cancelRunning, openPool, timeOut } from '../../support/pools.js'
import t from '../../support/tap.js'

/** Half of the connections may stream, here one. */
const CONNECTIONS = 2

async function rowsOf(batches: AsyncIterable<unknown[]>): Promise<unknown[]> {
  const rows = []
  for await (const batch of batches) rows.push(...batch)
  return rows
}

t.test('the queue, the connection and the first batch share one deadline', async (t) => {
  const { stream } = openCursors(openPool(t, await emptyDatabase(t), CONNECTIONS))
  const first = stream('select n from generate_series(1, 1000) n', [])
  await first.next()

  const order: string[] = []
  const second = stream('select pg_sleep(60)', []).next()
  const answered = t.rejects(second, DatabaseUnavailable).then(() => order.push('answered'))
  // Timers fire in order, even on a busy machine.
  const late = sleep(STATEMENT_MS + 500).then(() => order.push('late'))
  await sleep(STATEMENT_MS / 2)
  await first.return(undefined)
  await Promise.all([answered, late])
  t.strictSame(order, ['answered', 'late'])
})

t.test('a list that is hit by a late cancel request starts again', async (t) => {
  const url = await emptyDatabase(t)
  const pool = openPool(t, url, CONNECTIONS)
  await timeOut(t, pool)
  const slow = 'select n, pg_sleep(1) from generate_series($1::int, 7) n'
  const rows = rowsOf(openCursors(pool).stream(slow, [7]))
  rows.catch(() => {})
  await cancelRunning(t, url, slow)
  t.match(await rows, [{ n: 7 }])
})

t.test('a list starts again if the type of a column has changed', async (t) => {
  const url = await emptyDatabase(t)
  const { stream } = openCursors(openPool(t, url, CONNECTIONS))
  const observer = sqlClient(t, url)
  await observer`create table numbers as select n from generate_series(1, 1000) n`
  const list = () => rowsOf(stream('select n from numbers where n > $1', [0]))
  t.equal((await list()).length, 1000)
  await observer`alter table numbers alter n type smallint`
  t.equal((await list()).length, 1000)
})
