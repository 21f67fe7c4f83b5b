import { setTimeout as sleep } from 'node:timers/promises'
import { STATEMENT_MS } from '../../db/postgres/deadline-session.js'
import { clientOf, startApp } from '../support/api.js'
import { stopClock } from '../support/clock.js'
import { migratedDatabase, sqlClient } from '../support/databases.js'
import { scrape } from '../support/metrics.js'
import { until } from '../support/process.js'
import t from '../support/tap.js'
import { startProxy } from '../support/tcp-proxy.js'

const POOL = 'database_connections'
const CLOSED = 'database_connections_closed_total'

t.test('an idle service has one connection, and zero for every kind of failure', async (t) => {
  const app = await startApp(t)
  await app.db.ping(5_000)
  // The pool may still read the server's clock.
  await until(async () => (await scrape(app)).get(`${POOL}{state="busy"}`) === 0)
  const samples = await scrape(app)
  t.equal(samples.get(`${POOL}{state="idle"}`), 1)
  t.equal(samples.get(`${POOL}{state="opening"}`), 0)
  t.equal(samples.get('database_connections_max'), 10)
  for (const zero of [
    'database_statements{state="waiting"}',
    'database_statements{state="sent"}',
    'database_connection_failures_total',
    ...['lost', 'unresponsive', 'read_only', 'idle', 'list', 'closing'].map(
      (reason) => `${CLOSED}{reason="${reason}"}`
    ),
    ...['waiting', 'sent'].map((state) => `database_statement_timeouts_total{state="${state}"}`),
    ...['timeout', 'lock'].map((reason) => `database_statement_cancellations_total{reason="${reason}"}`),
    ...['committed', 'rolled_back', 'unknown'].map(
      (outcome) => `database_shared_transactions_total{outcome="${outcome}"}`
    ),
    ...['connection', 'timeout', 'overload', 'standby', 'closing', 'keys'].map(
      (reason) => `http_requests_shed_total{reason="${reason}"}`
    )
  ]) {
    t.equal(samples.get(zero), 0, zero)
  }
})

t.test('statements that wait, time out or are cancelled are counted, and their 503 answers', async (t) => {
  const url = await migratedDatabase(t)
  const app = await startApp(t, 'postgres', { DATABASE_URL: url, DATABASE_POOL_MAX: '2' })
  const alice = await clientOf(app, 'alice')
  await alice('GET')
  const holder = await sqlClient(t, url).reserve()
  await holder`begin`
  await holder`lock table tasks`

  // All requests arrive before the first statement times out, even on a slow machine.
  const clock = stopClock(t)
  const answers = Array.from({ length: 1_010 }, () => alice('GET'))
  const overload = 'http_requests_shed_total{reason="overload"}'
  await until(async () => ((await scrape(app)).get(overload) ?? 0) >= 10)
  const full = await scrape(app)
  t.ok((full.get('database_statements{state="waiting"}') ?? 0) > 0)
  t.ok((full.get('database_statements{state="sent"}') ?? 0) > 0)
  t.ok([1, 2].includes(full.get(`${POOL}{state="busy"}`) ?? 0))
  clock.advance(STATEMENT_MS)
  t.ok((await Promise.all(answers)).every(({ status }) => status === 503))

  // A cancel request counts when the server has answered it, which may be after the 503.
  const cancelled = 'database_statement_cancellations_total{reason="timeout"}'
  await until(async () => {
    const now = await scrape(app)
    return now.get('database_statements{state="sent"}') === 0 && (now.get(cancelled) ?? 0) > 0
  })
  const after = await scrape(app)
  const late = after.get('http_requests_shed_total{reason="timeout"}') ?? 0
  const refused = after.get(overload) ?? 0
  t.equal(late + refused, answers.length)
  t.ok(refused > 0)
  const waiting = after.get('database_statement_timeouts_total{state="waiting"}') ?? 0
  const sent = after.get('database_statement_timeouts_total{state="sent"}') ?? 0
  t.ok(sent > 0)
  t.equal(waiting + sent, late)
  t.ok((after.get(cancelled) ?? 0) > 0)
  await holder`rollback`
  holder.release()
})

t.test('the time that a statement waited for a connection is measured in seconds', async (t) => {
  const url = await migratedDatabase(t)
  const app = await startApp(t, 'postgres', { DATABASE_URL: url, DATABASE_POOL_MAX: '2' })
  const alice = await clientOf(app, 'alice')
  await alice('GET')
  const before = await scrape(app)
  const bucket = (le: string) => `database_statement_wait_seconds_bucket{le="${le}"}`
  const holder = await sqlClient(t, url).reserve()
  await holder`begin`
  await holder`lock table tasks`
  // Each of the two connections gets at most 16 statements.
  const answers = Array.from({ length: 40 }, () => alice('GET'))
  await until(async () => ((await scrape(app)).get('database_statements{state="waiting"}') ?? 0) >= 8)
  await sleep(200)
  await holder`rollback`
  holder.release()
  t.strictSame(
    (await Promise.all(answers)).map(({ status }) => status),
    Array(40).fill(200)
  )
  const after = await scrape(app)
  const rise = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0)
  t.equal(rise('database_statement_wait_seconds_count'), 40)
  t.equal(rise(bucket('+Inf')), 40)
  t.ok(rise('database_statement_wait_seconds_count') - rise(bucket('0.1')) >= 8, 'eight had to wait')
})

t.test('each lost connection is counted, and logged in one line', async (t) => {
  const proxy = await startProxy(t, await migratedDatabase(t))
  const lines: string[] = []
  const logStream = { write: (line: string) => lines.push(line) }
  const app = await startApp(t, 'postgres', { DATABASE_URL: proxy.url, LOG_LEVEL: 'warn' }, { logStream })
  await app.db.ping(5_000)
  proxy.cut()
  await until(async () => (await scrape(app)).get(`${CLOSED}{reason="lost"}`) === 1)
  t.match(
    lines.map((line) => JSON.parse(line)),
    [{ level: 40, reason: 'lost', msg: 'a connection to the database was lost' }]
  )
  t.equal(lines.length, 1)

  await proxy.refuse()
  await t.rejects(app.db.ping(5_000))
  t.ok(((await scrape(app)).get('database_connection_failures_total') ?? 0) > 0)
  await proxy.listen()
  await until(() =>
    app.db.ping(5_000).then(
      () => true,
      () => false
    )
  )
  t.equal((await scrape(app)).get('database_connections_opened_total'), 2)
  t.equal(lines.length, 1, 'a connection that cannot be made is no lost one')
})

t.test('the number of writes in each shared transaction is measured', async (t) => {
  const app = await startApp(t)
  const alice = await clientOf(app, 'alice')
  const create = () => alice('POST', '', { title: 'a' })
  const samples = await (async () => {
    for (;;) {
      await Promise.all(Array.from({ length: 50 }, create))
      const samples = await scrape(app)
      if ((samples.get('database_shared_transaction_writes_sum') ?? 0) > 50) return samples
    }
  })()
  const count = samples.get('database_shared_transaction_writes_count') ?? 0
  t.ok(count > 0)
  t.equal(samples.get('database_shared_transactions_total{outcome="committed"}'), count)
  t.ok((samples.get('database_shared_transaction_writes_sum') ?? 0) / count > 1)
})

t.test('the embedded database counts as one connection', async (t) => {
  const app = await startApp(t, 'embedded')
  const samples = await scrape(app)
  t.equal(samples.get(`${POOL}{state="idle"}`), 1)
  t.equal(samples.get('database_connections_max'), 1)
})
