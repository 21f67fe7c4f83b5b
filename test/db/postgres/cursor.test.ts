import { setTimeout as sleep } from 'node:timers/promises'
import { DatabaseUnavailable } from '../../../db/errors.js'
import { openCursors } from '../../../db/postgres/cursor.js'
import { STATEMENT_MS } from '../../../db/postgres/deadline-session.js'
import { openClient } from '../../../db/postgres/driver.js'
import { Pool } from '../../../db/postgres/pool.js'
import { type DatabaseAddress, parseDatabaseUrl } from '../../../db/postgres/url.js'
import { emptyDatabase } from '../../support/databases.js'
import t from '../../support/tap.js'

t.test('the queue, the connection and the first batch share one deadline', async (t) => {
  const target = parseDatabaseUrl(await emptyDatabase(t))
  const [address] = target.addresses as [DatabaseAddress]
  // Half of the connections may stream, here one.
  const pool = new Pool((events) => openClient(target, address, events), 2)
  t.teardown(() => pool.end(100))
  const { stream } = openCursors(pool)
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
