import { DatabaseUnavailable } from '../../../db/errors.js'
import { type Sending, Session, STATEMENT_MS } from '../../../db/postgres/deadline-session.js'
import { openClient } from '../../../db/postgres/driver.js'
import { Delays } from '../../../db/postgres/durations.js'
import { type DatabaseAddress, parseDatabaseUrl } from '../../../db/postgres/url.js'
import { emptyDatabase, sqlClient } from '../../support/databases.js'
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
const SLOW = { text: 'select pg_sleep(1), 7 as n', parameters: [] }

async function openSession(t: Test, database?: string) {
  const url = database ?? (await emptyDatabase(t))
  const target = parseDatabaseUrl(url)
  const client = await openClient(target, target.addresses[0] as DatabaseAddress)
  const session = new Session(client, EVENTS, new Delays())
  t.teardown(() => session.close('closing'))
  const observer = sqlClient(t, url)
  /** Cancels the session's current statement, like a late cancel request for the previous one. */
  const cancel = () =>
    until(async () => {
      const cancelled = await observer`
        select pg_cancel_backend(pid) from pg_stat_activity where query = ${SLOW.text} and state = 'active'`
      return cancelled.length > 0
    })
  return { session, cancel }
}

/** The server sends this message for cursors only. Otherwise the driver throws an error. */
const PORTAL_SUSPENDED = Buffer.from('s\0\0\0\x04')

/** The statement's rows or its error, if it is answered already. */
const stateOf = (statement: Promise<unknown>): Promise<string> =>
  Promise.race([statement, 'no answer yet']).then(String, String)

t.test('a statement fails at its deadline and not before, and is then cancelled', async (t) => {
  const { session } = await openSession(t)
  const sentAt = performance.now()
  const sending = { ...SENDING, until: sentAt + STATEMENT_MS }
  const statement = session.send({ text: 'select pg_sleep(600)', parameters: [] }, sentAt, sending)
  session.tick(sentAt + STATEMENT_MS - 1)
  t.equal(await stateOf(statement), 'no answer yet')
  session.tick(sentAt + STATEMENT_MS)
  t.match(await stateOf(statement), /^DatabaseUnavailable/)
  // Without a cancel request it would run for ten minutes.
  await until(() => session.pending === 0, PATIENCE_MS)
  t.ok(session.isOpen, 'and the connection can be used again')
})

t.test('a statement that is hit by a late cancel request is retried', async (t) => {
  const { session, cancel } = await openSession(t)
  // In the future, so that the time in which a late cancel request is expected does not end during this test.
  const now = performance.now() + 600_000
  const late = session.send({ text: 'select pg_sleep(600)', parameters: [] }, now, { ...SENDING, until: now })
  session.tick(now)
  await t.rejects(late, DatabaseUnavailable)
  await until(() => session.pending === 0)
  const next = session.send(SLOW, now, SENDING)
  await cancel()
  t.match(await next, [{ n: 7 }])
})

t.test('a statement that an administrator cancels is not retried', async (t) => {
  const { session, cancel } = await openSession(t)
  const answer = session.send(SLOW, performance.now(), SENDING)
  answer.catch(() => {})
  await cancel()
  await t.rejects(answer, DatabaseUnavailable)
})

t.test('a connection is closed if the driver fails on an answer', async (t) => {
  // Without TLS, so that the proxy can add a message.
  const proxy = await startProxy(t, await emptyDatabase(t, 'plain'))
  const { session } = await openSession(t, proxy.url)
  const [running, queued] = [600, 0].map((seconds) =>
    session.send({ text: `select pg_sleep(${seconds})`, parameters: [] }, performance.now(), SENDING)
  ) as [Promise<unknown>, Promise<unknown>]
  queued.catch(() => {})
  proxy.answer(PORTAL_SUSPENDED)
  await t.rejects(running, TypeError)
  // On the same connection it might get another statement's answer.
  t.match(await stateOf(queued), /^DatabaseUnavailable/)
  t.notOk(session.isOpen)
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
