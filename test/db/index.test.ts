import type { FastifyInstance } from 'fastify'
import { DatabaseUnavailable } from '../../db/errors.js'
import { type BuiltStatement, type Database, openDatabase } from '../../db/index.js'
import { type Answer, type Client, clientOf, startApp } from '../support/api.js'
import { stopClock } from '../support/clock.js'
import { migratedDatabase, sqlClient } from '../support/databases.js'
import { startPostgres } from '../support/postgres-server.js'
import { until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.js'

// tap fails a test on every uncaught exception and unhandled rejection, so these tests also show that there is none.

/** Far beyond the deadline of a statement, in milliseconds, so that a slow machine does not fail. */
const LATE_MS = 10_000
const RECOVERY_MS = 10_000

/** Answers must not contain these words. */
const INTERNALS =
  /select|insert|update |tasks_|postgres|127\.0\.0\.1|ECONN|CONNECT|read-only|lock|admin|stack/i

function expectUnavailable(t: Test, { status, headers, json, text }: Answer): void {
  t.equal(status, 503)
  t.equal(json.code, 'unavailable')
  t.match(headers['retry-after'], /^\d+$/)
  t.notMatch(text, INTERNALS)
}

/**
 * A client of alice that throws if an answer takes too long. Tests of the deadline itself are in deadline-session.test.ts. This
 * limit only ends a wait that would last for ever.
 */
async function aliceOf(app: FastifyInstance): Promise<Client> {
  const alice = await clientOf(app, 'alice')
  return async (...request) => {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${request[0]} has no answer after ${LATE_MS} ms`)), LATE_MS)
    })
    try {
      return await Promise.race([alice(...request), late])
    } finally {
      clearTimeout(timer)
    }
  }
}

const create = (alice: Client) => alice('POST', '', { title: 'Buy milk' })

interface Situation {
  proxy: TcpProxy
  /** A direct connection, without the proxy. */
  database: string
  sql: ReturnType<typeof sqlClient>
  unlockTasks?: () => Promise<void>
}

/** Ends every connection of the service. */
const endBackends = ({ sql }: Situation) => sql`
  select pg_terminate_backend(pid) from pg_stat_activity
  where datname = current_database() and application_name = 'tasks-api'`

const name = (url: string) => new URL(url).pathname.slice(1)

const outages: [what: string, begin: (s: Situation) => unknown, end: (s: Situation) => unknown][] = [
  ['refuses connections', ({ proxy }) => proxy.refuse(), ({ proxy }) => proxy.listen()],
  [
    'closes every connection at once',
    ({ proxy }) => {
      proxy.mode = 'close'
      proxy.cut()
    },
    ({ proxy }) => {
      proxy.mode = 'pass'
    }
  ],
  [
    'accepts connections and says nothing',
    ({ proxy }) => {
      proxy.mode = 'silent'
      proxy.cut()
    },
    ({ proxy }) => {
      proxy.mode = 'pass'
    }
  ],
  ...(['silent handshake', 'cut handshake'] as const).map((mode): (typeof outages)[number] => [
    `agrees to TLS, and then there is a ${mode}`,
    ({ proxy }) => {
      proxy.mode = mode
      proxy.cut()
    },
    ({ proxy }) => {
      proxy.mode = 'pass'
    }
  ]),
  [
    'goes silent for a while',
    ({ proxy }) => {
      proxy.freeze()
      proxy.mode = 'silent'
    },
    ({ proxy }) => {
      proxy.mode = 'pass'
      proxy.thaw()
    }
  ],
  [
    'goes silent and comes back elsewhere, so that old connections never say anything again',
    ({ proxy }) => {
      proxy.freeze()
      proxy.mode = 'silent'
    },
    ({ proxy }) => {
      proxy.mode = 'pass'
    }
  ],
  [
    'has become read-only, as a former primary does',
    async (situation) => {
      await situation.sql.unsafe(
        `alter database ${name(situation.database)} set default_transaction_read_only = on`
      )
      await endBackends(situation)
    },
    ({ sql, database }) =>
      sql.begin('read write', (tx) =>
        tx.unsafe(`alter database ${name(database)} reset default_transaction_read_only`)
      )
  ],
  [
    'lets the whole table be locked',
    async (situation) => {
      situation.unlockTasks = await lockTasks(situation.sql)
    },
    ({ unlockTasks }) => unlockTasks?.()
  ]
]

/** @returns a function that ends the lock */
async function lockTasks(sql: Situation['sql']): Promise<() => Promise<void>> {
  const holder = await sql.reserve()
  await holder`begin`
  await holder`lock table tasks in access exclusive mode`
  return async () => {
    await holder`rollback`
    holder.release()
  }
}

t.test('while the database does not answer', async (t) => {
  // Each test has a database of its own and mostly waits, so they run at the same time.
  t.jobs = 4
  for (const [what, begin, end] of outages) {
    t.test(`503 in time while it ${what}, and success afterwards`, async (t) => {
      const database = await migratedDatabase(t)
      const proxy = await startProxy(t, database)
      const app = await startApp(t, 'postgres', { DATABASE_URL: proxy.url })
      const alice = await aliceOf(app)
      const situation: Situation = { proxy, database, sql: sqlClient(t, database) }
      await until(async () => (await create(alice)).status === 201)

      await begin(situation)
      // Each broken connection may fail one more statement.
      await create(alice)
      for (const answer of await Promise.all([create(alice), create(alice), create(alice)])) {
        expectUnavailable(t, answer)
      }

      await end(situation)
      await until(async () => (await create(alice)).status === 201, RECOVERY_MS)
      const answers = await Promise.all(Array.from({ length: 20 }, () => alice('GET')))
      t.ok(
        answers.every(({ status }) => status === 200),
        'all of it, not only now and then'
      )
    })
  }

  t.test('a locked row fails only its own request, with 503', async (t) => {
    const database = await migratedDatabase(t)
    const app = await startApp(t, 'postgres', { DATABASE_URL: database })
    const alice = await aliceOf(app)
    const { json: locked } = await create(alice)
    const holder = await sqlClient(t, database).reserve()
    await holder`begin`
    await holder`select from tasks where id = ${locked.id} for update`
    expectUnavailable(t, await alice('PATCH', `/${locked.id}`, { title: 'Buy bread' }))
    t.equal((await create(alice)).status, 201)
    await holder`rollback`
    holder.release()
    await until(async () => (await alice('PATCH', `/${locked.id}`, { title: 'Buy bread' })).status === 200)
  })

  t.test('a write that was answered 503 is cancelled: it never happens, and blocks nothing', async (t) => {
    const database = await migratedDatabase(t)
    const proxy = await startProxy(t, database)
    const app = await startApp(t, 'postgres', { DATABASE_URL: proxy.url })
    const alice = await aliceOf(app)
    const { json: task } = await create(alice)
    const sql = sqlClient(t, database)
    const unlockTasks = await lockTasks(sql)
    // More than the number of connections, so that some are queued.
    const writes = await Promise.all(
      Array.from({ length: 20 }, (_, i) => alice('PATCH', `/${task.id}`, { title: `Change ${i}` }))
    )
    for (const answer of writes) expectUnavailable(t, answer)
    await until(async () => {
      const [{ count }] = (await sql`
      select count(*)::int from pg_stat_activity
      where datname = current_database() and application_name = 'tasks-api' and state = 'active'`) as unknown as [
        { count: number }
      ]
      return count === 0
    })
    await unlockTasks()
    t.match((await alice('GET', `/${task.id}`)).json, { title: 'Buy milk', updated_at: task.updated_at })
  })

  t.test(
    'if a cancel request has no effect, the connection is closed, and statements queued behind it are not executed',
    async (t) => {
      const database = await migratedDatabase(t)
      const proxy = await startProxy(t, database)
      const app = await startApp(t, 'postgres', { DATABASE_URL: proxy.url })
      const alice = await aliceOf(app)
      const { json: task } = await create(alice)
      const sql = sqlClient(t, database)
      const unlockTasks = await lockTasks(sql)
      // A cancel request uses a connection of its own.
      proxy.mode = 'silent'
      const writes = await Promise.all(
        Array.from({ length: 20 }, (_, i) => alice('PATCH', `/${task.id}`, { title: `Change ${i}` }))
      )
      for (const answer of writes) expectUnavailable(t, answer)
      proxy.mode = 'pass'
      await unlockTasks()
      await until(async () => (await alice('GET', `/${task.id}`)).status === 200, RECOVERY_MS)
      const after = await alice('GET', `/${task.id}`)
      t.match(after.headers.etag, /^"[1-4]"$/, 'at most the one statement that each connection was busy with')
    }
  )
})

t.test('every answer is correct or 503 while connections are closed under load', async (t) => {
  const database = await migratedDatabase(t)
  const app = await startApp(t, 'postgres', { DATABASE_URL: database })
  const alice = await aliceOf(app)
  const situation = { database, sql: sqlClient(t, database) } as Situation
  const created: string[] = []
  for (let round = 0; round < 5; round++) {
    const answers = Array.from({ length: 40 }, () => create(alice))
    await endBackends(situation)
    for (const answer of await Promise.all(answers)) {
      if (answer.status === 201) created.push(answer.json.id)
      else if (answer.status !== 503) t.fail(answer.text)
    }
  }
  // Reads and writes use different connections, and each may have lost its own.
  await until(async () => (await alice('GET')).status === 200, RECOVERY_MS)
  const ids = new Set((await alice('GET')).json.map(({ id }: { id: string }) => id))
  t.ok(
    created.every((id) => ids.has(id)),
    'what was acknowledged is there'
  )
})

/** Runs a statement with the service's deadline and limits. */
const ask = (db: Database, text: string, kind: 'read' | 'write' = 'write') => {
  const statement = { toSQL: () => ({ sql: text, params: [] }) } as unknown as BuiltStatement<unknown>
  if (kind === 'read') return db.prepareRead(statement)({})
  return db.prepareWrite(statement, () => ({ user: 'anybody', task: undefined }))({})
}

t.test('the service reconnects to a database server that crashed and restarted', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const app = await startApp(t, 'postgres', { DATABASE_URL: server.url('postgres') })
  const alice = await aliceOf(app)
  const before = (await create(alice)).json
  const underWay = t.rejects(
    ask(app.db, 'select pg_sleep(30)'),
    DatabaseUnavailable,
    'a statement under way ends with the server'
  )
  await server.kill()
  await underWay
  expectUnavailable(t, await create(alice))
  await server.restart()
  await until(async () => (await create(alice)).status === 201, RECOVERY_MS)
  t.equal((await alice('GET', `/${before.id}`)).status, 200)
})

t.test('statements beyond the limit are refused at once, and the others succeed', async (t) => {
  const url = await migratedDatabase(t)
  const db = await openDatabase({ kind: 'postgres', url })
  t.teardown(() => db.close())
  const observer = sqlClient(t, url)
  await observer`create table gate (id int)`
  const holder = await observer.reserve()
  await holder`begin`
  await holder`lock table gate`
  // No deadline passes, even on a slow machine.
  stopClock(t)
  const select = () => ask(db, 'select * from gate', 'read')
  const accepted = Array.from({ length: 1_000 }, select)
  await t.rejects(Promise.race([select(), 'no refusal']), DatabaseUnavailable)
  await holder`rollback`
  holder.release()
  await Promise.all(accepted)
  await select()
})

t.test('rows before an error are not part of the next answer', async (t) => {
  const db = await openDatabase({ kind: 'postgres', url: await migratedDatabase(t) })
  t.teardown(() => db.close())
  await t.rejects(ask(db, 'select 1 / (3 - n) from generate_series(1, 5) n'), { code: '22012' })
  t.strictSame([...(await ask(db, 'select 1 as one'))], [{ one: 1 }])
})

t.test('a lost server in a list of hosts is an outage, and the next host is used', async (t) => {
  const database = await migratedDatabase(t)
  const proxies = [await startProxy(t, database), await startProxy(t, database)] as const
  const [first, second] = proxies.map(({ url }) => new URL(url))
  const url = database.replace(/@[^/]+/, `@${first?.host},${second?.host}`)
  const db = await openDatabase({ kind: 'postgres', url })
  t.teardown(() => db.close())
  const observer = sqlClient(t, database)
  const waiting = t.rejects(ask(db, 'select pg_sleep(30)', 'read'), DatabaseUnavailable)
  await until(async () => {
    const active = await observer`
      select from pg_stat_activity where datname = current_database() and query like '%pg_sleep%' and wait_event = 'PgSleep'`
    return active.length > 0
  })
  proxies[0].cut()
  await waiting
  await proxies[0].refuse()
  await until(async () => (await ask(db, 'select 1 as one', 'read').catch(() => [])).length === 1)
  t.ok(proxies[1].accepted > 0)
})

t.test('a lock timeout of the database is an outage', async (t) => {
  const database = await migratedDatabase(t)
  const db = await openDatabase({ kind: 'postgres', url: database })
  t.teardown(() => db.close())
  const observer = sqlClient(t, database)
  await observer`create table gate (id int)`
  await observer.unsafe(`alter database ${new URL(database).pathname.slice(1)} set lock_timeout = 100`)
  const holder = await observer.reserve()
  await holder`begin`
  await holder`lock table gate`
  await t.rejects(ask(db, 'select * from gate'), DatabaseUnavailable)
  await holder`rollback`
  holder.release()
})

t.test('a bug is not an outage', async (t) => {
  const db = await openDatabase({ kind: 'postgres', url: await migratedDatabase(t) })
  t.teardown(() => db.close())
  await t.rejects(ask(db, 'selec 1'), { code: '42601' })
})

t.test('an idle service does not reconnect when the database closes its connections', async (t) => {
  const proxy = await startProxy(t, await migratedDatabase(t))
  const app = await startApp(t, 'postgres', { DATABASE_URL: proxy.url })
  const alice = await aliceOf(app)
  proxy.mode = 'close'
  proxy.cut()
  await create(alice)
  await create(alice)
  let before: number
  await until(async () => {
    before = proxy.accepted
    await new Promise((resolve) => setTimeout(resolve, 500))
    return proxy.accepted === before
  })
})
