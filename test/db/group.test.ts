import { sql } from 'drizzle-orm'
import t, { type Test } from 'tap'
import { type Database, openDatabase, type Statement } from '../../db/client.js'
import { migrate } from '../../db/migrate.js'
import { taskRepository } from '../../db/tasks.js'
import { Unavailable } from '../../src/errors.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { startPostgres } from '../support/postgres-server.js'
import { until } from '../support/process.js'
import { startProxy } from '../support/tcp-proxy.js'

const USER = 'alice'
const MANY = 100

async function open(t: Test) {
  const url = await emptyDatabase(t)
  const proxy = await startProxy(t, url)
  const db = await openDatabase({ kind: 'postgres', url: proxy.url })
  t.teardown(() => db.close())
  await db.administer(migrate)
  const tasks = taskRepository(db)
  // Each connection has been used, and knows the statement.
  await burst(100, (n) => tasks.create('warm', { title: `${n}` }))
  return { db, tasks, proxy, observer: sqlClient(t, url) }
}

/** So many calls at the same time. */
const burst = <T>(count: number, call: (n: number) => Promise<T>) =>
  Promise.allSettled(Array.from({ length: count }, (_, n) => call(n)))

/** The titles of what was acknowledged, and of what was answered with something else than "not now". */
function outcomes(answers: PromiseSettledResult<{ title: string }>[]) {
  const acknowledged: string[] = []
  const wrong: unknown[] = []
  for (const answer of answers) {
    if (answer.status === 'fulfilled') acknowledged.push(answer.value.title)
    else if (!(answer.reason instanceof Unavailable)) wrong.push(answer.reason)
  }
  return { acknowledged: acknowledged.sort(), wrong }
}

type Observer = ReturnType<typeof sqlClient>

async function stored(observer: Observer): Promise<string[]> {
  const rows = await observer`select title from tasks where user_id = ${USER}`
  return rows.map(({ title }) => title).sort()
}

/** How many the service has. */
async function connections(observer: Observer): Promise<number> {
  const [row] = await observer`
    select count(*)::int from pg_stat_activity
    where datname = current_database() and application_name = 'tasks-api'`
  return row?.count as number
}

/** Keeps a row from being changed, until it is let go. */
async function lockRow(observer: Observer, id: string) {
  const holder = await observer.reserve()
  await holder`begin`
  await holder`select from tasks where id = ${id} for update`
  return async () => {
    await holder`rollback`
    holder.release()
  }
}

t.test('writes that come together share transactions, and each has its own answer', async (t) => {
  const { tasks, observer } = await open(t)
  // In another order than that in which they take locks.
  const user = (n: number) => `user-${(n * 37) % MANY}`
  const answers = await burst(MANY, (n) => tasks.create(user(n), { title: `${n}` }))
  for (const [n, answer] of answers.entries()) {
    const { user_id, title } = answer.status === 'fulfilled' ? answer.value : {}
    t.strictSame([user_id, title], [user(n), `${n}`])
  }
  const rows = await observer`select user_id, title, xmin::text from tasks where user_id like 'user-%'`
  t.equal(rows.length, MANY)
  for (const { user_id, title } of rows) t.equal(user_id, user(title))
  const transactions = new Set(rows.map(({ xmin }) => xmin)).size
  t.comment(`${transactions} transactions for ${MANY} writes`)
  t.ok(transactions < MANY / 2)
})

t.test('a write that is wrong fails alone, and the others are done once', async (t) => {
  const { tasks, observer } = await open(t)
  const bad = [3, 40, 41]
  const answers = await burst(MANY, (n) => tasks.create(USER, { title: bad.includes(n) ? '\0' : `${n}` }))
  const { acknowledged, wrong } = outcomes(answers)
  t.equal(acknowledged.length, MANY - bad.length)
  t.equal(wrong.length, bad.length)
  for (const reason of wrong) t.match(reason, { code: '22021' })
  t.strictSame(await stored(observer), acknowledged)
})

t.test('a write that waits for a lock holds up nothing but itself', async (t) => {
  const { tasks, observer } = await open(t)
  const locked = await tasks.create('bob', { title: 'Locked' })
  const unlock = await lockRow(observer, locked.id)
  const waiting = tasks.update('bob', locked.id, { title: 'Changed' })
  waiting.catch(() => {})
  const { acknowledged } = outcomes(await burst(MANY, (n) => tasks.create(USER, { title: `${n}` })))
  t.equal(acknowledged.length, MANY)
  t.strictSame(await stored(observer), acknowledged)
  await t.rejects(waiting, Unavailable)
  await unlock()
})

t.test(
  'a commit of which it is not known whether it waited for the standby is not acknowledged',
  async (t) => {
    const { tasks, proxy, observer } = await open(t)
    const locked = await tasks.create(USER, { title: 'Locked' })
    const unlock = await lockRow(observer, locked.id)
    // To stop the transaction takes a connection, on which nobody listens.
    proxy.mode = 'silent'
    const before = proxy.accepted
    const writes = [
      tasks.update(USER, locked.id, { title: 'Changed' }),
      tasks.update(USER, locked.id, { completed: true })
    ]
    for (const write of writes) write.catch(() => {})
    await until(() => proxy.accepted > before)
    await unlock()
    for (const write of writes) await t.rejects(write, Unavailable)
    t.strictSame(await stored(observer), ['Changed'], 'and yet it was carried out')
  }
)

t.test(
  'what did not reach the standby is not acknowledged, whoever stopped the waiting for it',
  async (t) => {
    const server = await startPostgres()
    t.teardown(() => server.stop())
    const db = await openDatabase({ kind: 'postgres', url: server.url('postgres') })
    t.teardown(() => db.close())
    await db.administer(migrate)
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
      // An administrator, while it waits for a standby that never comes.
      await until(async () => {
        const stopped = await observer`
        select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`
        return stopped.length > 0
      })
      for (const write of writes) await t.rejects(write, Unavailable)
    }
    t.strictSame(await stored(observer), ['Alone', 'Shared', 'Too'], 'and yet they were carried out')
  }
)

t.test('nothing is acknowledged that was undone because its statement had to be planned anew', async (t) => {
  const { tasks, observer } = await open(t)
  const all: string[] = []
  for (let round = 0; round < 6; round++) {
    // The driver tries a statement once more whose result has another type than before.
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

/** A write that says who was there, in a table of which it locks nothing. */
async function visits(db: Database, observer: Observer) {
  await observer`create table visits (nr serial, who text, at bigint default txid_current())`
  const visit = db.prepare('write', {
    toSQL: () => ({ sql: 'insert into visits (who) values ($1)', params: [sql.placeholder('user_id')] })
  } as unknown as Statement<unknown>)
  return {
    visit,
    seen: () => observer`select array_agg(who order by nr) as who from visits group by at order by min(nr)`
  }
}

t.test('locks are taken in one order', async (t) => {
  const { db, observer } = await open(t)
  const { visit, seen } = await visits(db, observer)
  await Promise.all(['dave', 'bob', 'alice', 'carol'].map((user_id) => visit({ user_id, id: '' })))
  t.strictSame([...(await seen())], [{ who: ['alice', 'bob', 'carol', 'dave'] }])
})

t.test('the case of an id does not change the order', async (t) => {
  const { db, observer } = await open(t)
  await observer`create table taken (nr serial, id text)`
  const take = db.prepare('write', {
    toSQL: () => ({ sql: 'insert into taken (id) values ($1)', params: [sql.placeholder('id')] })
  } as unknown as Statement<unknown>)
  await Promise.all(['C', 'b', 'A', 'd'].map((id) => take({ user_id: USER, id })))
  const rows = await observer`select id from taken order by nr`
  t.strictSame(
    rows.map(({ id }) => id),
    ['A', 'b', 'C', 'd']
  )
})

t.test(
  "a create with a key shares with other users' writes only: it may lock any task of its own",
  async (t) => {
    const { db, observer } = await open(t)
    const { visit, seen } = await visits(db, observer)
    const [plain, keyed] = [{ id: '' }, { id: '', key: 'k' }]
    await Promise.all([
      visit({ user_id: 'alice', ...plain }),
      visit({ user_id: 'alice', ...plain }),
      visit({ user_id: 'alice', ...keyed }),
      visit({ user_id: 'bob', ...keyed }),
      visit({ user_id: 'bob', ...plain }),
      visit({ user_id: 'bob', ...keyed }),
      visit({ user_id: 'carol', ...keyed })
    ])
    t.strictSame((await seen()).map(({ who }) => who.join(' ')).sort(), [
      'alice alice bob carol',
      'alice bob',
      'bob'
    ])
  }
)

t.test('what is tried once more for a new plan means the same', async (t) => {
  const { tasks, observer } = await open(t)
  const { id } = await tasks.create(USER, { title: 'Buy milk' })
  for (let round = 0; round < 6; round++) {
    // On each of the connections for writes, which take turns.
    for (let i = 0; i < 6; i++) await tasks.toggle(USER, id, false)
    await observer.unsafe(`alter table tasks alter title type ${round % 2 ? 'text' : 'varchar(300)'}`)
    t.match(await tasks.toggle(USER, id, true), { completed: true })
    t.match(await tasks.get(USER, id), { completed: true })
  }
})

t.test('nothing is done twice when only the last statement had to be planned anew', async (t) => {
  const { tasks, observer } = await open(t)
  const { id } = await tasks.create('zoe', { title: 'Buy milk' })
  await burst(MANY, () => tasks.update('zoe', id, { title: 'Buy bread' }))
  for (let round = 0; round < 6; round++) {
    await observer.unsafe(`alter table tasks alter title type ${round % 2 ? 'text' : 'varchar(300)'}`)
    // Every connection knows how to create again, and none how to update.
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

t.test('what could not be sent in time never is', async (t) => {
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
  // What was sent is cancelled.
  await until(async () => {
    const active = await observer`
      select from pg_stat_activity
      where datname = current_database() and application_name = 'tasks-api' and state = 'active'`
    return active.length === 0
  })
  await holder`rollback`
  holder.release()
  // The server counts when a connection ends.
  await db.close()
  await until(async () => (await connections(observer)) === 0)
  t.strictSame(await stored(observer), [])
  const count = (await rolledBack()) - before
  t.comment(`${count} transactions rolled back`)
  t.ok(count < 30, 'no transaction for those that were late')
})

t.test('what was not sent when the database is closed is refused', async (t) => {
  const { db, tasks, observer } = await open(t)
  const answers = burst(10, (n) => tasks.create(USER, { title: `${n}` }))
  await db.close()
  const { acknowledged, wrong } = outcomes(await answers)
  t.strictSame(wrong, [])
  t.strictSame(await stored(observer), acknowledged)
})

t.test('nothing is sent after the database was closed', async (t) => {
  const url = await emptyDatabase(t)
  const db = await openDatabase({ kind: 'postgres', url })
  const write = taskRepository(db).create(USER, { title: 'Buy milk' })
  write.catch(() => {})
  await db.close()
  // Not that there is no such table.
  await t.rejects(write, Unavailable)
  t.equal(await connections(sqlClient(t, url)), 0)
})
