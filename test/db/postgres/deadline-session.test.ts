import { DatabaseUnavailable } from '../../../db/errors.js'
import { type Sending, Session, STATEMENT_MS } from '../../../db/postgres/deadline-session.js'
import { Delays } from '../../../db/postgres/durations.js'
import { emptyDatabase, sqlClient, TRANSPORTS } from '../../support/databases.js'
import { hangingStatement, NEVER_ENDS, opener, openPool, timeOut, unmeasured } from '../../support/pools.js'
import { until } from '../../support/process.js'
import t, { type Test } from '../../support/tap.js'
import { startProxy } from '../../support/tcp-proxy.js'

/** Limit for a wait, in milliseconds. It only ends a test that would wait for ever. */
const PATIENCE_MS = 10_000

const ignore = () => {}
const EVENTS = {
  onAnswer: ignore,
  onTimeout: ignore,
  onCancel: ignore,
  onClosed: ignore,
  onReadOnly: ignore
}
const SENDING: Sending = { until: Number.POSITIVE_INFINITY, costMs: 0, isWrite: false }

async function openSession(t: Test, database?: string) {
  const url = database ?? (await emptyDatabase(t))
  const session = new Session(await opener(url)(), EVENTS, new Delays())
  t.teardown(() => session.close('closing'))
  return { session, url }
}

const FAILS = { text: 'select 1 / 0', parameters: [] }

/** The server sends this message for cursors only. Otherwise the driver throws an error. */
const PORTAL_SUSPENDED = Buffer.from('s\0\0\0\x04')

/** The statement's rows or its error, if it is answered already. */
const stateOf = (statement: Promise<unknown>): Promise<string> =>
  Promise.race([statement, 'no answer yet']).then(String, String)

t.test('a statement fails at its deadline and not before, and is then cancelled', async (t) => {
  const { session } = await openSession(t)
  const sentAt = performance.now()
  const sending = { ...SENDING, until: sentAt + STATEMENT_MS }
  const statement = session.send(NEVER_ENDS, sentAt, sending)
  session.tick(sentAt + STATEMENT_MS - 1)
  t.equal(await stateOf(statement), 'no answer yet')
  session.tick(sentAt + STATEMENT_MS)
  t.match(await stateOf(statement), /^DatabaseUnavailable/)
  // Without a cancel request it would run for ten minutes.
  await until(() => session.pending === 0, PATIENCE_MS)
  t.ok(session.isOpen, 'and the connection can be used again')
})

const WAYS: [how: string, end: (session: Session) => unknown][] = [
  ['close', (session) => session.close('unresponsive')],
  ['end', (session) => session.end(100)]
]
for (const [how, end, transport] of WAYS.flatMap((way) =>
  TRANSPORTS.map((each) => [...way, each] as const)
)) {
  t.test(`\`${how}\` resets a busy connection, over ${transport}`, async (t) => {
    const url = await emptyDatabase(t, transport)
    const sockets = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length
    const { session } = await openSession(t, url)
    const sql = sqlClient(t, url)
    await sql`create table executed (n int)`
    const holder = await sql.reserve()
    const send = (text: string, n: number) =>
      session.send({ text, parameters: [n] }, performance.now(), SENDING)
    const insert = (n: number) => send('insert into executed values ($1)', n)
    const lock = (n: number) => send('select pg_advisory_lock($1)', n)
    // Before it queues a statement, the driver must have prepared it.
    await Promise.all([insert(0), lock(0)])
    await holder`select pg_advisory_lock(1)`
    const statements = [lock(1), insert(1), insert(2), insert(3)]
    const failed = Promise.all(statements.map((statement) => t.rejects(statement, DatabaseUnavailable)))
    await until(async () => (await sql`select from pg_locks where not granted`).length > 0)
    const open = sockets()
    await end(session)
    await failed
    await until(() => sockets() < open)
    // Now PostgreSQL would go on with the next statement.
    await holder`select pg_advisory_unlock(1)`
    holder.release()
    const others = () => sql`
      select from pg_stat_activity
      where datname = current_database() and application_name = 'tasks-api'`
    await until(async () => (await others()).length === 0)
    t.strictSame([...(await sql`select n from executed`)], [{ n: 0 }])
  })
}

t.test('an idle connection is closed without a reset, which PostgreSQL would log', async (t) => {
  const connection = await opener(await emptyDatabase(t))()
  const reset = () => t.fail('reset')
  const session = new Session({ ...connection, reset }, EVENTS, new Delays())
  await session.send({ text: 'select 1', parameters: [] }, performance.now(), SENDING)
  session.close('idle')
  await t.rejects(async () => connection.query('select 1', []))
})

t.test('a statement that is hit by a late cancel request is retried', async (t) => {
  const { session, url } = await openSession(t)
  const statement = await hangingStatement(t, url)
  // In the future, so that the time in which a late cancel request is expected does not end during this test.
  const now = performance.now() + 600_000
  const late = session.send(NEVER_ENDS, now, { ...SENDING, until: now })
  session.tick(now)
  await t.rejects(late, DatabaseUnavailable)
  await until(() => session.pending === 0)
  const next = session.send(statement, now, SENDING)
  await statement.cancel()
  t.equal((await next).length, 7)
})

t.test('a statement that an administrator cancels is not retried', async (t) => {
  const { session, url } = await openSession(t)
  const statement = await hangingStatement(t, url)
  const answer = session.send(statement, performance.now(), SENDING)
  answer.catch(() => {})
  await statement.cancel()
  await t.rejects(answer, DatabaseUnavailable)
})

t.test('a statement that is retried keeps its connection from a list', async (t) => {
  const url = await emptyDatabase(t)
  const pool = openPool(t, url, 1)
  const statement = await hangingStatement(t, url)
  await timeOut(t, pool)
  const next = pool.read(statement, unmeasured(), performance.now(), Number.POSITIVE_INFINITY)
  const list = pool.reserve(Number.POSITIVE_INFINITY)
  await statement.cancel()
  t.equal((await list).pending, 0)
  t.equal((await next).length, 7)
})

t.test('a connection is closed if the driver fails on an answer', async (t) => {
  // Without TLS, so that the proxy can add a message.
  const proxy = await startProxy(t, await emptyDatabase(t, 'plain'))
  const { session } = await openSession(t, proxy.url)
  const [running, queued] = [NEVER_ENDS, NEVER_ENDS].map((statement) =>
    session.send(statement, performance.now(), SENDING)
  ) as [Promise<unknown>, Promise<unknown>]
  queued.catch(() => {})
  proxy.answer(PORTAL_SUSPENDED)
  await t.rejects(running, TypeError)
  // On the same connection it might get another statement's answer.
  t.match(await stateOf(queued), /^DatabaseUnavailable/)
  t.notOk(session.isOpen)
})

t.test('if a commit was not confirmed by the standby, no write before or behind it is', async (t) => {
  const { session } = await openSession(t)
  const send = (isWrite: boolean) =>
    session.send({ text: 'select 7 as n', parameters: [] }, performance.now(), { ...SENDING, isWrite })
  const [write, read, other] = [send(true), send(false), send(true)]
  session.markStandbyUnconfirmed()
  t.match(await write.catch((error) => error), { reason: 'standby' })
  t.match(await read, [{ n: 7 }])
  t.match(await other.catch((error) => error), { reason: 'standby' })
})

t.test('a reading of the clock is not repeated', async (t) => {
  const url = await emptyDatabase(t)
  const { text, cancel } = await hangingStatement(t, url)
  await sqlClient(t, url).unsafe(`
    create schema slow;
    create function slow.clock_timestamp() returns timestamptz language sql as
      $$ select max(now()) from (${text.replace('$1', '1')}) rows $$`)
  const { session } = await openSession(t, `${url}&options=-c%20search_path%3Dslow,public,pg_catalog`)
  const now = performance.now() + 600_000
  const late = session.send(NEVER_ENDS, now, { ...SENDING, until: now })
  session.tick(now)
  await t.rejects(late, DatabaseUnavailable)
  await until(() => session.pending === 0)
  const reading = session.clock(now, Number.POSITIVE_INFINITY)
  await cancel()
  t.equal(await reading, undefined)
})

t.test('a connection is closed if its begin or commit fails', async (t) => {
  const { session } = await openSession(t)
  const boundary = session.send(FAILS, performance.now(), { ...SENDING, isBoundary: true })
  const behind = session.send(NEVER_ENDS, performance.now(), SENDING)
  behind.catch(() => {})
  await t.rejects(boundary, { code: '22012' })
  t.match(await stateOf(behind), /^DatabaseUnavailable/)
  t.notOk(session.isOpen)
})

for (const failure of ['driver', 'network'] as const) {
  t.test(`work that waits for a connection survives a failure of the ${failure}`, async (t) => {
    const proxy = await startProxy(t, await emptyDatabase(t, 'plain'))
    const pool = openPool(t, proxy.url, 1)
    const running = pool.read(NEVER_ENDS, unmeasured(), performance.now(), Number.POSITIVE_INFINITY)
    running.catch(() => {})
    await until(() => pool.sent === 1)
    const waiting = pool.reserve(Number.POSITIVE_INFINITY)
    if (failure === 'driver') proxy.answer(PORTAL_SUSPENDED)
    else proxy.reset()
    await t.rejects(running)
    const { connection } = await waiting
    t.match(await connection.query('select 7 as n', []), [{ n: 7 }])
  })
}

t.test('work whose connection becomes free only after its deadline is refused', async (t) => {
  const pool = openPool(t, await emptyDatabase(t), 1)
  const now = performance.now()
  const read = (text: string, until: number) => pool.read({ text, parameters: [] }, unmeasured(), now, until)
  const running = read('select pg_sleep(0.2)', Number.POSITIVE_INFINITY)
  await until(() => pool.sent === 1)
  // Nothing checks the deadlines here, as while the process is paused.
  const late = pool.reserve(now)
  const behind = read('select 7 as n', Number.POSITIVE_INFINITY)
  await t.rejects(late, new DatabaseUnavailable('timeout'))
  await running
  t.match(await behind, [{ n: 7 }])
})

t.test('while a pool ends, running statements finish and new ones are refused', async (t) => {
  const pool = openPool(t, await emptyDatabase(t), 1)
  const read = (text: string) =>
    pool.read({ text, parameters: [] }, unmeasured(), performance.now(), Number.POSITIVE_INFINITY)
  const running = read('select pg_sleep(0.5), 7 as n')
  await until(() => pool.sent === 1)
  const ended = pool.end(PATIENCE_MS)
  await t.rejects(read('select 1'), DatabaseUnavailable)
  t.match(await running, [{ n: 7 }])
  await ended
})

t.test('connections that the end of their pool closes do not count as lost', async (t) => {
  for (const seconds of [0, 0.1]) {
    const pool = openPool(t, await emptyDatabase(t), 1)
    const reasons: string[] = []
    pool.observed.on('closed', (reason) => reasons.push(reason))
    const statement = { text: `select pg_sleep(${seconds})`, parameters: [] }
    const running = pool.read(statement, unmeasured(), performance.now(), Number.POSITIVE_INFINITY)
    await (seconds === 0 ? running : until(() => pool.sent === 1))
    await pool.end(PATIENCE_MS)
    await running
    t.strictSame(reasons, ['closing'], `while a statement takes ${seconds} s`)
  }
})

t.test('a statement that PostgreSQL refuses does not close its connection', async (t) => {
  const { session } = await openSession(t)
  await t.rejects(session.send(FAILS, performance.now(), SENDING), { code: '22012' })
  t.ok(session.isOpen)
  t.equal((await session.send({ text: 'select 7', parameters: [] }, performance.now(), SENDING)).length, 1)
})

t.test("the server's clock gives the duration of a statement", async (t) => {
  const { session } = await openSession(t)
  const now = performance.now()
  const before = session.clock(now, Number.POSITIVE_INFINITY)
  void session.send({ text: 'select pg_sleep(0.2)', parameters: [] }, now, SENDING)
  const after = session.clock(now, Number.POSITIVE_INFINITY)
  t.equal(session.pending, 1, 'a reading of the clock does not fill the queue')
  t.ok(Number(await after) - Number(await before) >= 200)
  session.close('closing')
  t.equal(await session.clock(now, Number.POSITIVE_INFINITY), undefined, 'and a failure is none of its users')
})
