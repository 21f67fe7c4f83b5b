import { setTimeout as sleep } from 'node:timers/promises'
import { FIRST_ROWS, openCursors } from '../../../db/postgres/cursor.js'
import { STATEMENT_MS } from '../../../db/postgres/deadline-session.js'
import { SECRET } from '../../support/api.js'
import { emptyDatabase, migratedDatabase, sqlClient } from '../../support/databases.js'
import { openPool } from '../../support/pools.js'
import { aliceAt, startProcess, until } from '../../support/process.js'
import t from '../../support/tap.js'

// A process can be paused: by the CPU limit of its container, while its virtual machine moves, by `docker pause`.

const PAUSE_MS = STATEMENT_MS + 200

t.test('an answer of the database that arrives while the process is paused is in time', async (t) => {
  const DATABASE_URL = await migratedDatabase(t)
  const service = await (await startProcess(t, { JWT_SECRET: SECRET, DATABASE_URL })).ready()
  const alice = await aliceAt(service)
  const { id } = (await (await alice('POST', '', { title: 'Buy milk' })).json()) as { id: string }
  const sql = sqlClient(t, DATABASE_URL)
  const isAtWork = async (condition = sql`true`) => {
    const rows = await sql`
      select from pg_stat_activity
      where datname = current_database() and application_name = 'tasks-api' and state <> 'idle' and ${condition}`
    return rows.length > 0
  }

  for (const [method, body] of [['GET'], ['PATCH', { completed: true }]] as [string, object?][]) {
    const request = () => alice(method, `/${id}`, body)
    // On its first use on a connection, a statement takes two round trips.
    t.equal((await request()).status, 200)
    const holder = await sql.reserve()
    await holder`begin`
    await holder`lock table tasks in access exclusive mode`
    const answer = request()
    await until(() => isAtWork(sql`wait_event_type = 'Lock'`))
    service.process.kill('SIGSTOP')
    await holder`rollback`
    holder.release()
    await until(async () => !(await isAtWork()))
    await sleep(PAUSE_MS)
    service.process.kill('SIGCONT')
    t.equal((await answer).status, 200, method)
  }
  const metrics = await (await fetch(`${service.ops}/metrics`)).text()
  t.match(metrics, 'database_statement_cancellations_total{reason="timeout"} 0')
})

t.test('a batch of a long list that arrives while the process is paused is in time', async (t) => {
  const url = await emptyDatabase(t)
  const { stream } = openCursors(openPool(t, url, 2))
  const observer = sqlClient(t, url)
  // The second batch takes half a second.
  const text = 'select n from generate_series(1, $1::int) n where n <> $1 / 2 or pg_sleep(0.5) is not null'
  const list = stream(text, [FIRST_ROWS * 3], 'alice')
  const rows = async () => (await list.next()).value?.length
  t.equal(await rows(), FIRST_ROWS)
  const second = rows()
  await until(
    async () => (await observer`select from pg_stat_activity where wait_event = 'PgSleep'`).length > 0
  )
  const end = performance.now() + PAUSE_MS
  while (performance.now() < end);
  t.equal(await second, 2 * FIRST_ROWS)
})
