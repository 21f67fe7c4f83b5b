import { DatabaseUnavailable } from '../../../db/errors.js'
import { openDatabase } from '../../../db/index.js'
import { migrate } from '../../../db/migrate.js'
import { STATEMENT_MS } from '../../../db/postgres/deadline-session.js'
import { type Client, type ConnectionEvents, openClient } from '../../../db/postgres/driver.js'
import { Pool } from '../../../db/postgres/pool.js'
import { type DatabaseAddress, parseDatabaseUrl } from '../../../db/postgres/url.js'
import { takeBatch, WriteBatcher } from '../../../db/postgres/write-batches.js'
import { oneTask, taskRepository } from '../../../db/tasks.js'
import { stopClock } from '../../support/clock.js'
import { emptyDatabase, migratedDatabase, sqlClient } from '../../support/databases.js'
import { opener, openPool, timeOut, unmeasured } from '../../support/pools.js'
import { startPostgres } from '../../support/postgres-server.js'
import { until } from '../../support/process.js'
import t, { type Test } from '../../support/tap.js'
import { startProxy } from '../../support/tcp-proxy.js'

const USER = 'alice'
const MANY = 100
/** No deadline. */
const DISTANT = Number.POSITIVE_INFINITY

async function open(t: Test, sharedTransactions = true) {
  // Other tests of the database use TLS.
  const url = await migratedDatabase(t, 'plain')
  const proxy = await startProxy(t, url)
  const db = await openDatabase({ kind: 'postgres', url: proxy.url, sharedTransactions })
  t.teardown(() => db.close())
  const tasks = taskRepository(db)
  const observer = sqlClient(t, url)
  // A slow commit, as on a disk or with a standby. Only then do writes always share transactions.
  await observer.unsafe(`
    create function slow_commit() returns trigger language plpgsql as $$ begin perform pg_sleep(0.005); return null; end $$;
    create constraint trigger slow_commit after insert or update or delete on tasks
      deferrable initially deferred for each row execute function slow_commit()`)
  // Every connection has prepared the statement.
  await burst(100, (n) => tasks.create('warm', { title: `${n}` }))
  return { db, tasks, proxy, observer }
}

/** Makes this many calls at the same time. */
const burst = <T>(count: number, call: (n: number) => Promise<T>) =>
  Promise.allSettled(Array.from({ length: count }, (_, n) => call(n)))

/** The titles of acknowledged creates, and of those with an error other than "unavailable". */
function outcomes(answers: PromiseSettledResult<{ title: string }>[]) {
  const acknowledged: string[] = []
  const wrong: unknown[] = []
  for (const answer of answers) {
    if (answer.status === 'fulfilled') acknowledged.push(answer.value.title)
    else if (!(answer.reason instanceof DatabaseUnavailable)) wrong.push(answer.reason)
  }
  return { acknowledged: acknowledged.sort(), wrong }
}

type Observer = ReturnType<typeof sqlClient>

async function stored(observer: Observer): Promise<string[]> {
  const rows = await observer`select title from tasks where user_id = ${USER}`
  return rows.map(({ title }) => title).sort()
}

/** The number of the service's connections. */
async function connections(observer: Observer): Promise<number> {
  const [row] = await observer`
    select count(*)::int from pg_stat_activity
    where datname = current_database() and application_name = 'tasks-api'`
  return row?.count as number
}

/** The number of the service's statements that wait for a lock. */
async function waitingForLock(observer: Observer): Promise<number> {
  const [row] = await observer`
    select count(*)::int from pg_stat_activity
    where datname = current_database() and application_name = 'tasks-api' and wait_event_type = 'Lock'`
  return row?.count as number
}

/** Locks a row until the returned function is called. */
async function lockRow(observer: Observer, id: string) {
  const holder = await observer.reserve()
  await holder`begin`
  await holder`select from tasks where id = ${id} for update`
  return async () => {
    await holder`rollback`
    holder.release()
  }
}

t.test('each write of a batch gets its own answer', async (t) => {
  const { tasks, observer } = await open(t)
  // Not in the order in which they lock rows.
  const user = (n: number) => `user-${(n * 37) % MANY}`
  const answers = await burst(MANY, (n) => tasks.create(user(n), { title: `${n}` }))
  for (const [n, answer] of answers.entries()) {
    const { user_id, title } = answer.status === 'fulfilled' ? answer.value : {}
    t.strictSame([user_id, title], [user(n), `${n}`])
  }
  const rows = await observer`select user_id, title from tasks where user_id like 'user-%'`
  t.equal(rows.length, MANY)
  for (const { user_id, title } of rows) t.equal(user_id, user(title))
})

/** A function that fails the first time with this error, as if another session had stopped it. */
const stopOnce = (error: string) => `
  create sequence runs;
  create function stop_once() returns void language plpgsql as $$ begin
    if nextval('runs') = 1 then raise exception using errcode = '${error}'; end if;
  end $$;`
const STOPPED = {
  commit: `
    create function stop() returns trigger language plpgsql as $$ begin perform stop_once(); return null; end $$;
    create constraint trigger stop after insert on notes
      deferrable initially deferred for each row execute function stop()`,
  'reading of the clock': `
    create schema other;
    create function other.clock_timestamp() returns timestamptz language plpgsql as
      $$ begin perform public.stop_once(); return now(); end $$`
}

t.test('a commit that a late cancel request stops acknowledges nothing', async (t) => {
  const url = await emptyDatabase(t)
  const observer = sqlClient(t, url)
  await observer.unsafe(`create table notes (n int); ${stopOnce('query_canceled')} ${STOPPED.commit}`)
  const pool = openPool(t, url, 2)
  await timeOut(t, pool)
  const writes = new WriteBatcher(pool)
  const insert = { text: 'insert into notes values ($1)', parameters: [7] }
  // They share a transaction. A second commit would succeed, because the transaction has ended. A second insert might be
  // one too many: PostgreSQL can stop after the commit.
  const shared = ['alice', 'bob'].map((user) =>
    t.rejects(writes.run(insert, { user, task: undefined }, DISTANT), DatabaseUnavailable)
  )
  await Promise.all(shared)
  t.strictSame([...(await observer`select n from notes`)], [])
})

for (const [name, definition] of Object.entries(STOPPED)) {
  t.test(`if PostgreSQL stops the ${name} of a shared transaction, each write is tried alone`, async (t) => {
    const url = await emptyDatabase(t)
    const observer = sqlClient(t, url)
    await observer.unsafe(`create table notes (n int); ${stopOnce('serialization_failure')} ${definition}`)
    const pool = openPool(t, `${url}&options=-c%20search_path%3Dother,public,pg_catalog`, 2)
    const writes = new WriteBatcher(pool)
    const run = (user: string, n: number) =>
      writes.run(
        { text: 'insert into notes values ($1)', parameters: [n] },
        { user, task: undefined },
        DISTANT
      )
    await Promise.all([run('alice', 1), run('bob', 2)])
    const [row] =
      await observer`select array_agg(n order by n) as notes, nextval('runs') > 2 as stopped from notes`
    t.strictSame({ ...row }, { notes: [1, 2], stopped: true })
  })
}

// As behind a pooler, where the service sets no isolation level.
t.test('at the level serializable, concurrent changes of one row all succeed', async (t) => {
  const url = await emptyDatabase(t)
  const observer = sqlClient(t, url)
  await observer`create table counters (n int)`
  await observer`insert into counters values (0)`
  const options = encodeURIComponent('-c default_transaction_isolation=serializable')
  const pool = openPool(t, `${url}&options=${options}`, 8)
  const level = pool.read(
    { text: "select current_setting('transaction_isolation') as level", parameters: [] },
    unmeasured(),
    performance.now(),
    DISTANT
  )
  t.strictSame([...(await level)], [{ level: 'serializable' }])
  for (const isSharing of [true, false]) {
    await observer`update counters set n = 0`
    const writes = new WriteBatcher(pool, isSharing)
    const one = { text: 'update counters set n = n + $1 returning n', parameters: [1] }
    const answers = await burst(40, (n) => writes.run(one, { user: `${n}`, task: undefined }, DISTANT))
    t.strictSame(new Set(answers.map(({ status }) => status)), new Set(['fulfilled']))
    t.strictSame([...(await observer`select n from counters`)], [{ n: 40 }])
  }
})

t.test('a read that PostgreSQL stops for a concurrent transaction is tried again', async (t) => {
  const url = await emptyDatabase(t)
  await sqlClient(t, url).unsafe(stopOnce('serialization_failure'))
  const pool = openPool(t, url, 2)
  const read = { text: "select stop_once()::text, nextval('runs') as run", parameters: [] }
  t.match(await pool.read(read, unmeasured(), performance.now(), DISTANT), [{ run: '3' }])
})

t.test('behind a pooler, nothing is sent behind a commit', async (t) => {
  const url = await emptyDatabase(t)
  await sqlClient(t, url)`create table notes (n int)`
  const sent: string[] = []
  const open = async (events: ConnectionEvents): Promise<Client> => {
    const client = await opener(url)(events)
    const query: Client['query'] = (text, parameters) => {
      sent.push(/^\w+( extract)?/.exec(text)?.[0] as string)
      return client.query(text, parameters)
    }
    return { ...client, canPipeline: false, query }
  }
  const pool = new Pool(open, 2)
  t.teardown(() => pool.end(100))
  const writes = new WriteBatcher(pool)
  const insert = { text: 'insert into notes values ($1)', parameters: [7] }
  await Promise.all(['alice', 'bob'].map((user) => writes.run(insert, { user, task: undefined }, DISTANT)))
  const clock = 'select extract'
  t.strictSame(sent, ['begin', clock, clock, 'insert', 'insert', clock, 'commit'])
})

t.test('with sharing off, each write has a transaction of its own', async (t) => {
  const { tasks, observer } = await open(t, false)
  await burst(MANY, (n) => tasks.create(USER, { title: `${n}` }))
  const [row] = await observer`
    select count(distinct xmin::text)::int as transactions from tasks where user_id = ${USER}`
  t.equal(row?.transactions, MANY)
})

t.test('an invalid write fails alone, and the others happen once', async (t) => {
  const { tasks, observer } = await open(t)
  const bad = [3, 40, 41]
  const answers = await burst(MANY, (n) => tasks.create(USER, { title: bad.includes(n) ? '\0' : `${n}` }))
  const { acknowledged, wrong } = outcomes(answers)
  t.equal(acknowledged.length, MANY - bad.length)
  t.equal(wrong.length, bad.length)
  for (const reason of wrong) t.match(reason, { code: '22021' })
  t.strictSame(await stored(observer), acknowledged)
})

t.test('a write that waits for a lock delays no other', async (t) => {
  const { tasks, observer } = await open(t)
  const locked = await tasks.create('bob', { title: 'Locked' })
  const unlock = await lockRow(observer, locked.id)
  const waiting = tasks.update('bob', locked.id, { title: 'Changed' })
  waiting.catch(() => {})
  const { acknowledged } = outcomes(await burst(MANY, (n) => tasks.create(USER, { title: `${n}` })))
  t.equal(acknowledged.length, MANY)
  t.strictSame(await stored(observer), acknowledged)
  await t.rejects(waiting, DatabaseUnavailable)
  await unlock()
})

t.test(
  'a write that waits for a lock delays no write queued behind it, while every connection is busy',
  async (t) => {
    const url = await migratedDatabase(t)
    const db = await openDatabase({ kind: 'postgres', url, poolMax: 2 })
    t.teardown(() => db.close())
    const observer = sqlClient(t, url)
    // Too slow to share a transaction.
    await observer.unsafe(`
    create function slow_write() returns trigger language plpgsql as $$ begin perform pg_sleep(0.02); return new; end $$;
    create trigger slow_write before insert on tasks for each row execute function slow_write()`)
    const tasks = taskRepository(db)
    const locked = await tasks.create('bob', { title: 'Locked' })
    await burst(20, (n) => tasks.create('warm', { title: `${n}` }))
    const unlock = await lockRow(observer, locked.id)
    const first = burst(4, (n) => tasks.create(USER, { title: `first ${n}` }))
    const waiting = tasks.update('bob', locked.id, { title: 'Changed' })
    const { acknowledged } = outcomes([
      ...(await burst(20, (n) => tasks.create(USER, { title: `${n}` }))),
      ...(await first)
    ])
    t.equal(acknowledged.length, 24)
    t.strictSame(await stored(observer), acknowledged)
    await unlock()
    t.match(await waiting, { title: 'Changed' }, 'and it is done when the lock is gone')
  }
)

t.test('a commit is not acknowledged if it is unknown whether it waited for the standby', async (t) => {
  const { tasks, proxy, observer } = await open(t)
  const locked = await tasks.create(USER, { title: 'Locked' })
  const unlock = await lockRow(observer, locked.id)
  // The writes wait too long for the lock when the test says so, and never pass their deadline.
  const clock = stopClock(t)
  const writes = [
    tasks.update(USER, locked.id, { title: 'Changed' }),
    tasks.update(USER, locked.id, { completed: true })
  ]
  for (const write of writes) write.catch(() => {})
  await until(async () => (await waitingForLock(observer)) > 0)
  // The check before a cancel request needs a connection, and no server listens at this address.
  proxy.mode = 'silent'
  const before = proxy.accepted
  clock.advance(STATEMENT_MS - 100)
  await until(() => proxy.accepted > before)
  await unlock()
  for (const write of writes) await t.rejects(write, DatabaseUnavailable)
  t.strictSame(await stored(observer), ['Changed'], 'and yet it was carried out')
})

t.test(
  'a write that did not reach the standby is not acknowledged, even if another client cancels the wait',
  async (t) => {
    const server = await startPostgres()
    t.teardown(() => server.stop())
    const db = await openDatabase({ kind: 'postgres', url: server.url('postgres') })
    t.teardown(() => db.close())
    await db.withAdminConnection(migrate)
    const observer = sqlClient(t, server.url('postgres'))
    await observer.unsafe("alter system set synchronous_standby_names = 'nobody'")
    await server.kill()
    await server.restart()
    const tasks = taskRepository(db)
    const answers = () => tasks.list(USER).catch(() => undefined)
    await until(async () => (await answers()) !== undefined)
    for (const titles of [['Alone'], ['Shared', 'Too']]) {
      const writes = titles.map((title) => tasks.create(USER, { title }))
      for (const write of writes) write.catch(() => {})
      // An administrator cancels the wait for a standby that never comes.
      await until(async () => {
        const stopped = await observer`
        select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`
        return stopped.length > 0
      })
      for (const write of writes) await t.rejects(write, DatabaseUnavailable)
    }
    t.strictSame(await stored(observer), ['Alone', 'Shared', 'Too'], 'and yet they were carried out')
  }
)

t.test('a write that was rolled back because of a stale plan is not acknowledged', async (t) => {
  const { tasks, observer } = await open(t)
  const all: string[] = []
  for (let round = 0; round < 6; round++) {
    // The driver retries a statement if its result has another type than before.
    await observer.unsafe(`alter table tasks alter title type ${round % 2 ? 'text' : 'varchar(300)'}`)
    const answers = await burst(40, (n) => tasks.create(USER, { title: `${round} ${n}` }))
    const { acknowledged, wrong } = outcomes(answers)
    t.strictSame(wrong, [])
    all.push(...acknowledged)
    const rows = await stored(observer)
    t.equal(new Set(rows).size, rows.length, 'nothing twice')
    t.strictSame(
      all.filter((title) => !rows.includes(title)),
      [],
      'everything that was acknowledged'
    )
  }
  await until(
    async () =>
      outcomes(await burst(40, (n) => tasks.create('carol', { title: `${n}` }))).acknowledged.length === 40
  )
})

/** A queued write, with its lock as name: `user/task`, or `user/*` for any of the user's tasks. */
const write = (name: string, isolated = false) => {
  const [user, task] = name.split('/') as [string, string]
  return { name, isolated, target: { user, task: task === '*' ? undefined : task } }
}

/** The names of the writes in each batch, until the queue is empty. */
function batchesOf(names: string[], size = 32): string[] {
  const batches: string[] = []
  for (let queue = names.map((name) => write(name)); queue.length > 0; ) {
    const { batch, rest } = takeBatch(queue, size)
    batches.push(batch.map(({ name }) => name).join(' '))
    queue = rest
  }
  return batches
}

t.test('a batch locks rows in order of user and task', async (t) => {
  t.strictSame(batchesOf(['dave/1', 'bob/2', 'alice/1', 'bob/1']), ['alice/1 bob/1 bob/2 dave/1'])
})

t.test('a batch has at most the given number of writes, the oldest first', async (t) => {
  t.strictSame(batchesOf(['c/1', 'b/1', 'a/1'], 2), ['b/1 c/1', 'a/1'])
})

t.test("a write that may lock any of its user's tasks shares only with other users' writes", async (t) => {
  t.strictSame(batchesOf(['alice/1', 'alice/2', 'alice/*', 'bob/*', 'bob/1', 'bob/*', 'carol/*']), [
    'alice/1 alice/2 bob/* carol/*',
    'alice/* bob/1',
    'bob/*'
  ])
})

t.test('after a failed batch each of its writes runs alone', async (t) => {
  const { batch, rest } = takeBatch([write('a/1', true), write('b/1')], 32)
  t.strictSame([batch.length, rest.length], [1, 1])
})

t.test('an id in upper case and in lower case is the same task', async (t) => {
  t.strictSame(oneTask({ user_id: 'alice', id: 'AB' }), { user: 'alice', task: 'ab' })
})

t.test('a retry after a stale plan has the same effect', async (t) => {
  const { tasks, observer } = await open(t)
  const { id } = await tasks.create(USER, { title: 'Buy milk' })
  for (let round = 0; round < 6; round++) {
    // Once on each connection for writes, because they take turns.
    for (let i = 0; i < 6; i++) await tasks.toggle(USER, id, false)
    await observer.unsafe(`alter table tasks alter title type ${round % 2 ? 'text' : 'varchar(300)'}`)
    t.match(await tasks.toggle(USER, id, true), { completed: true })
    t.match(await tasks.get(USER, id), { completed: true })
  }
})

t.test('no write runs twice if only the last statement had a stale plan', async (t) => {
  const { tasks, observer } = await open(t)
  const { id } = await tasks.create('zoe', { title: 'Buy milk' })
  await burst(MANY, () => tasks.update('zoe', id, { title: 'Buy bread' }))
  for (let round = 0; round < 6; round++) {
    await observer.unsafe(`alter table tasks alter title type ${round % 2 ? 'text' : 'varchar(300)'}`)
    // Every connection has prepared create again, and none has prepared update.
    await until(async () => {
      const answers = await burst(MANY, (n) => tasks.create('carol', { title: `${n}` }))
      return outcomes(answers).acknowledged.length === MANY
    })
    const { version } = (await tasks.get('zoe', id)) ?? { version: 0 }
    const answers = await Promise.allSettled([
      tasks.create(USER, { title: `${round}` }),
      tasks.update('zoe', id, { title: `${round}` })
    ])
    const { acknowledged, wrong } = outcomes(answers as PromiseSettledResult<{ title: string }>[])
    t.strictSame(wrong, [])
    const after = (await tasks.get('zoe', id))?.version ?? 0
    t.ok(after <= version + 1, 'updated once at most')
    t.ok(acknowledged.length === 0 || after === version + 1)
    const rows = (await stored(observer)).filter((title) => title === `${round}`)
    t.equal(rows.length, answers[0].status === 'fulfilled' ? 1 : 0)
  }
})

t.test('a write that was not sent before its deadline is never sent', async (t) => {
  const { db, tasks, observer } = await open(t)
  const rolledBack = async () => {
    const [row] = await observer`
      select xact_rollback::int as count from pg_stat_database where datname = current_database()`
    return row?.count as number
  }
  const before = await rolledBack()
  const holder = await observer.reserve()
  await holder`begin`
  await holder`lock table tasks`
  const { acknowledged, wrong } = outcomes(await burst(900, (n) => tasks.create(USER, { title: `${n}` })))
  t.strictSame([acknowledged, wrong], [[], []])
  // Statements that were sent are cancelled. Between two of them a connection is idle for a moment.
  await until(async () => {
    const { sent, waiting } = db.figures()
    if (sent + waiting > 0) return false
    const active = await observer`
      select from pg_stat_activity
      where datname = current_database() and application_name = 'tasks-api' and state = 'active'`
    return active.length === 0
  })
  await holder`rollback`
  holder.release()
  // The server updates its counters when a connection ends.
  await db.close()
  await until(async () => (await connections(observer)) === 0)
  t.strictSame(await stored(observer), [])
  const count = (await rolledBack()) - before
  t.comment(`${count} transactions rolled back`)
  // Some for each of ten connections. If late writes were sent, there would be one more for each.
  t.ok(count < 300, 'no transaction for those that were late')
})

/** A pool of one connection, and a function that inserts a number into a table. */
async function openNumbers(t: Test, isSharing: boolean) {
  const url = await emptyDatabase(t)
  const observer = sqlClient(t, url)
  await observer`create table numbers (n int)`
  const pool = openPool(t, url, 1)
  const batcher = new WriteBatcher(pool, isSharing)
  const insert = (n: number, until: number) =>
    batcher.run(
      { text: `insert into numbers values (${n})`, parameters: [] },
      { user: 'alice', task: '' },
      until
    )
  return { pool, insert, numbers: async () => [...(await observer`select n from numbers`)] }
}

// Nothing checks the deadlines in the next two, as while the process is paused.

t.test('a write whose deadline passes in the turn that should send it is not sent', async (t) => {
  const { insert, numbers } = await openNumbers(t, false)
  // Opens the connection.
  await insert(1, DISTANT)
  await t.rejects(insert(2, performance.now()), new DatabaseUnavailable('timeout'))
  t.strictSame(await numbers(), [{ n: 1 }])
})

t.test('a write whose connection becomes free only after its deadline is not sent', async (t) => {
  const { pool, insert, numbers } = await openNumbers(t, true)
  const session = await pool.reserve(DISTANT)
  const deadline = performance.now() + 20
  const answers = Promise.allSettled([insert(1, deadline), insert(2, deadline), insert(3, DISTANT)])
  await until(() => pool.waiting > 0 && performance.now() > deadline)
  pool.release(session)
  const late = { status: 'rejected', reason: { reason: 'timeout' } }
  t.match(await answers, [late, late, { status: 'fulfilled' }])
  t.strictSame(await numbers(), [{ n: 3 }])
})

t.test('closing the database refuses queued writes', async (t) => {
  const { db, tasks, observer } = await open(t)
  const answers = burst(10, (n) => tasks.create(USER, { title: `${n}` }))
  await db.close()
  const { acknowledged, wrong } = outcomes(await answers)
  t.strictSame(wrong, [])
  t.strictSame(await stored(observer), acknowledged)
})

t.test('no write is sent after the database was closed', async (t) => {
  const url = await emptyDatabase(t)
  const db = await openDatabase({ kind: 'postgres', url })
  const write = taskRepository(db).create(USER, { title: 'Buy milk' })
  write.catch(() => {})
  await db.close()
  // The error is not that the table is missing.
  await t.rejects(write, DatabaseUnavailable)
  t.equal(await connections(sqlClient(t, url)), 0)
})

t.test('a write whose deadline passes before the commit is answered 503', async (t) => {
  const url = await emptyDatabase(t)
  const target = parseDatabaseUrl(url)
  const [address] = target.addresses as [DatabaseAddress]
  // The cancel request of the late write is never sent, because it could hit a later statement.
  const cancel = () => new Promise<never>(() => {})
  const pool = new Pool(async (events) => ({ ...(await openClient(target, address, events)), cancel }), 1)
  t.teardown(() => pool.end(1_000))
  const observer = sqlClient(t, url)
  const holder = await observer.reserve()
  await holder`begin`
  await holder`select pg_advisory_xact_lock(1)`
  const batcher = new WriteBatcher(pool)
  const write = (text: string, user: string, until: number) =>
    batcher.run({ text, parameters: [] }, { user, task: '' }, until)
  const never = Number.POSITIVE_INFINITY
  const deadline = performance.now() + 10_000
  // Sent in one batch, in the order of the users.
  const slow = write('select pg_current_xact_id() from pg_advisory_xact_lock(1)', 'alice', never)
  const late = write('select pg_current_xact_id()', 'bob', deadline)
  const other = write('select pg_current_xact_id()', 'carol', never)
  const answers = Promise.allSettled([slow, late, other])
  await until(async () => (await waitingForLock(observer)) > 0)
  pool.tick(deadline)
  await holder`commit`
  holder.release()
  const [first, , last] = await answers
  await t.rejects(late, DatabaseUnavailable)
  t.equal(first.status, 'fulfilled')
  t.strictSame(first, last, 'the others have committed, in one transaction')
})
