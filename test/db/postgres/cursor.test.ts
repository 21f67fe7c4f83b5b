import { setTimeout as sleep } from 'node:timers/promises'
import { DatabaseUnavailable } from '../../../db/errors.js'
import { FIRST_ROWS, openCursors } from '../../../db/postgres/cursor.js'
import { STATEMENT_MS } from '../../../db/postgres/deadline-session.js'
import type { ConnectionEvents } from '../../../db/postgres/driver.js'
import { Pool } from '../../../db/postgres/pool.js'
import { emptyDatabase, sqlClient } from '../../support/databases.js'
import { hangingStatement, opener, openPool, timeOut, unmeasured } from '../../support/pools.js'
import { until } from '../../support/process.js'
import t, { type Test } from '../../support/tap.js'

/** Half of the connections may stream, here one. */
const CONNECTIONS = 2

async function rowsOf(batches: AsyncIterable<unknown[]>): Promise<unknown[]> {
  const rows = []
  for await (const batch of batches) rows.push(...batch)
  return rows
}

t.test('the queue, the connection and the first batch share one deadline', async (t) => {
  const { stream } = openCursors(openPool(t, await emptyDatabase(t), CONNECTIONS))
  const first = stream('select n from generate_series(1, 1000) n', [], 'alice')
  await first.next()

  const order: string[] = []
  const second = stream('select pg_sleep(60)', [], 'alice').next()
  const answered = t.rejects(second, DatabaseUnavailable).then(() => order.push('answered'))
  // Timers fire in order, even on a busy machine.
  const late = sleep(STATEMENT_MS + 500).then(() => order.push('late'))
  await sleep(STATEMENT_MS / 2)
  await first.return(undefined)
  await Promise.all([answered, late])
  t.strictSame(order, ['answered', 'late'])
})

t.test(
  'a batch has fewer rows after long texts and more after short ones, and long texts come in slices',
  async (t) => {
    const { stream } = openCursors(openPool(t, await emptyDatabase(t), CONNECTIONS))
    // Three rows of 300,000 characters among short ones.
    const text = `select n, repeat('x', case when n between 41 and 43 then 300000 else 1 end) as text
    from generate_series(1, 700) n`
    const sizes: number[] = []
    let last = 0
    for await (const batch of stream(text, [], 'alice')) {
      sizes.push(batch.length)
      for (const row of batch as { n: number }[]) t.equal(row.n, ++last)
    }
    t.equal(last, 700)
    // Of the first batch of 50, no slice has more than one long text. The next has 524,288 × 50 / 900,047 = 29 rows.
    t.strictSame(sizes, [40, 1, 1, 1, 7, 29, 200, 200, 200, 21])
  }
)

t.test('a list that is left in the middle of a batch ends, and gives its turn to the next', async (t) => {
  const { stream } = openCursors(openPool(t, await emptyDatabase(t), CONNECTIONS))
  const text = "select n, repeat('x', 200000) as text from generate_series(1, 60) n"
  for await (const batch of stream(text, [], 'alice')) {
    t.equal(batch.length, 1)
    break
  }
  t.equal((await rowsOf(stream('select n from generate_series(1, 60) n', [], 'alice'))).length, 60)
})

t.test('however large the pool is, at most ten lists are read at the same time', async (t) => {
  const cursors = openCursors(openPool(t, await emptyDatabase(t), 30))
  const started = Array.from({ length: 11 }, (_, i) =>
    cursors.stream('select n from generate_series(1, 1000) n', [], `user-${i}`)
  )
  const first = started.map((list) => list.next())
  await Promise.all(first.slice(0, 10))
  t.equal(cursors.waiting, 1)
  await started[0]?.return(undefined)
  t.match(await first[10], { done: false })
  await Promise.all(started.map((list) => list.return(undefined)))
})

t.test('one user reads at most half of the lists that are read at the same time', async (t) => {
  const cursors = openCursors(openPool(t, await emptyDatabase(t), 10))
  const open = (user: string) => cursors.stream('select n from generate_series(1, 1000) n', [], user)
  const [first, second, third] = [open('alice'), open('alice'), open('alice')] as const
  await Promise.all([first.next(), second.next()])
  const waiting = third.next()
  const others = [open('bob'), open('carol')]
  for (const list of others) t.match(await list.next(), { done: false })
  t.equal(cursors.waiting, 1, 'of five, one is free, but not for alice')
  await second.return(undefined)
  t.match(await waiting, { done: false })
  await Promise.all([first, third, ...others].map((list) => list.return(undefined)))
})

t.test('at most 50 lists of one user wait', async (t) => {
  const cursors = openCursors(openPool(t, await emptyDatabase(t), 10))
  const open = (user: string) => cursors.stream('select n from generate_series(1, 1000) n', [], user)
  const alice = Array.from({ length: 53 }, () => open('alice'))
  const first = alice.map((list) => list.next())
  await t.rejects(first[52] as Promise<unknown>, new DatabaseUnavailable('overload'))
  t.equal(cursors.waiting, 50)
  const bob = open('bob')
  t.match(await bob.next(), { done: false })
  await bob.return(undefined)
  for (const [i, list] of alice.slice(0, 52).entries()) {
    t.match(await first[i], { done: false })
    await list.return(undefined)
  }
})

t.test('a list that is hit by a late cancel request starts again', async (t) => {
  const url = await emptyDatabase(t)
  const pool = openPool(t, url, CONNECTIONS)
  const { text, parameters, cancel } = await hangingStatement(t, url)
  await timeOut(t, pool)
  const rows = rowsOf(openCursors(pool).stream(text, parameters, 'alice'))
  rows.catch(() => {})
  await cancel()
  t.strictSame(
    await rows,
    [1, 2, 3, 4, 5, 6, 7].map((n) => ({ n }))
  )
})

/** A pool whose only connection has a cancel request on its way, until `arrive` is called. */
async function openCancelling(t: Test) {
  const url = await emptyDatabase(t)
  const observer = sqlClient(t, url)
  let arrive = () => {}
  const open = opener(url)
  const delayed = async (events?: ConnectionEvents) => {
    const client = await open(events)
    const cancel = () =>
      new Promise<boolean>((resolve) => {
        arrive = () => resolve(client.cancel())
      })
    return { ...client, cancel }
  }
  const pool = new Pool(delayed, CONNECTIONS)
  t.teardown(() => pool.end(100))
  const holder = await observer.reserve()
  await holder`select pg_advisory_lock(1)`
  const now = performance.now() + 1_000
  const locked = { text: 'select pg_advisory_lock(1)', parameters: [] }
  const late = pool.read(locked, unmeasured(), now, now)
  late.catch(() => {})
  await until(() => pool.sent === 1)
  pool.tick(now)
  await t.rejects(late, DatabaseUnavailable)
  // The statement ends before the cancel request arrives.
  await holder`select pg_advisory_unlock(1)`
  holder.release()
  await until(() => pool.sent === 0)
  return {
    pool,
    arrive,
    list: rowsOf(openCursors(pool).stream('select n from generate_series(1, 1000) n', [], 'alice'))
  }
}

t.test('a list waits until the cancel request for the statement before it has arrived', async (t) => {
  const { arrive, list } = await openCancelling(t)
  // A list that does not wait would end within this time.
  t.equal(await Promise.race([list, sleep(300, 'waits')]), 'waits')
  arrive()
  t.equal((await list).length, 1000)
})

t.test('if the cancel request does not arrive in time, the list is refused', async (t) => {
  const { pool, list } = await openCancelling(t)
  await t.rejects(list, new DatabaseUnavailable('timeout'))
  t.equal(pool.connections.idle, 0, 'and the connection is closed')
})

t.test('a list starts again if the type of a column has changed', async (t) => {
  const url = await emptyDatabase(t)
  const pool = openPool(t, url, 4)
  const observer = sqlClient(t, url)
  await observer`create table numbers as select n from generate_series(1, 1000) n`
  const { stream } = openCursors(pool)
  const list = (user: string) => stream('select n from numbers where n > $1', [0], user)
  // Both prepare the statement.
  const [first, second] = [list('alice'), list('bob')]
  await Promise.all([first.next(), second.next()])
  t.equal((await rowsOf(first)).length, 1000 - FIRST_ROWS)
  t.equal((await rowsOf(second)).length, 1000 - FIRST_ROWS)
  await observer`alter table numbers alter n type smallint`
  t.equal((await rowsOf(list('alice'))).length, 1000)
})
