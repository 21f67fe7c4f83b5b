import { randomUUID } from 'node:crypto'
import type { BuiltStatement } from '../../db/index.js'
import { type Answer, addToNextApp, type Client, clientOf, expectProblem, startApp } from '../support/api.js'
import { migratedDatabase, sqlClient } from '../support/databases.js'
import { SECURED } from '../support/postgres-server.js'
import { until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

const RECOVERY_MS = 10_000
/** A list of this many tasks is streamed. */
const MANY = 300

interface Service {
  unlockTable?: () => Promise<void>
  sql: ReturnType<typeof sqlClient>
  /** In another database. */
  outside: ReturnType<typeof sqlClient>
  database: string
  role: string
}

type Change = (service: Service) => Promise<unknown>

/** Runs a superuser's statements, with the names of the service's role and database. */
const run =
  (statements: string): Change =>
  ({ sql, outside, role, database }) =>
    (statements.includes('$database') ? outside : sql).unsafe(
      statements.replaceAll('$role', role).replaceAll('$database', database)
    )

const endBackends = run(`
  select pg_terminate_backend(pid) from pg_stat_activity
  where datname = '$database' and usename = '$role'`)

const inTurn =
  (...changes: Change[]): Change =>
  async (service) => {
    for (const change of changes) await change(service)
  }

const lockTable: Change = async (service) => {
  const holder = await service.sql.reserve()
  await holder`begin`
  await holder`lock table tasks in access exclusive mode`
  service.unlockTable = async () => {
    await holder`rollback`
    holder.release()
  }
}

/** Makes each write fail with this code, as PostgreSQL does when, for instance, its disk is full. */
const refusing = (code: string) =>
  run(`
  create function refuse() returns trigger language plpgsql as
    $$ begin raise exception 'no' using errcode = '${code}'; end $$;
  create trigger refuse before insert or update or delete on tasks for each statement execute function refuse()`)

/** States in which the database refuses statements, and how to end them. */
const OUTAGES: [what: string, code: string, begin: Change, end?: Change][] = [
  [
    'the password was changed',
    '28P01',
    inTurn(run(`alter role $role password 'another'`), endBackends),
    run(`alter role $role password 'secret'`)
  ],
  [
    'the role may not log in',
    '28000',
    inTurn(run('alter role $role nologin'), endBackends),
    run('alter role $role login')
  ],
  [
    'the role has no connection left',
    '53300',
    inTurn(run('alter role $role connection limit 0'), endBackends),
    run('alter role $role connection limit -1')
  ],
  [
    'the database takes no connections',
    '55000',
    inTurn(run('alter database $database allow_connections false'), endBackends),
    run('alter database $database allow_connections true')
  ],
  [
    'a right was revoked',
    '42501',
    run('revoke select, insert, update, delete on tasks from $role'),
    run('grant select, insert, update, delete on tasks to $role')
  ],
  [
    'the table was renamed',
    '42P01',
    run('alter table tasks rename to elsewhere'),
    run('alter table elsewhere rename to tasks')
  ],
  [
    'a column was renamed',
    '42703',
    run('alter table tasks rename title to label'),
    run('alter table tasks rename label to title')
  ],
  [
    'an index was dropped that keys need',
    '42P10',
    run('drop index tasks_idempotency_key'),
    run(`create unique index tasks_idempotency_key on tasks (user_id, idempotency_key)
      where idempotency_key is not null`)
  ],
  [
    'its role has a limit on the time of a statement',
    '57014',
    inTurn(run(`alter role $role set statement_timeout = '50ms'`), endBackends, lockTable),
    inTurn(
      async ({ unlockTable }) => unlockTable?.(),
      run('alter role $role reset statement_timeout'),
      endBackends
    )
  ],
  ...['53100', 'XX000', 'P0001', '0A000', '26000'].map((code): (typeof OUTAGES)[0] => [
    `it refuses writes with ${code}`,
    code,
    refusing(code),
    run('drop function refuse cascade')
  ]),
  ['the database was dropped', '3D000', run('drop database $database with (force)')]
]

/** Every operation, including a create with a key and a streamed list. */
function everyRequest(alice: Client, bob: Client, id: string): Promise<Answer[]> {
  return Promise.all([
    alice('POST', '', { title: 'Buy milk' }),
    alice('POST', '', { title: 'Buy milk' }, { 'idempotency-key': randomUUID() }),
    alice('GET'),
    bob('GET'),
    alice('GET', `/${id}`),
    alice('PATCH', `/${id}`, { title: 'Buy bread' }),
    alice('PATCH', `/${id}/complete`, {}),
    alice('DELETE', `/${randomUUID()}`)
  ])
}

async function start(t: Test) {
  const url = new URL(await migratedDatabase(t))
  const role = `${SECURED}${randomUUID().replaceAll('-', '')}`
  const sql = sqlClient(t, url.href)
  const outside = sqlClient(t, url.href.replace(url.pathname, '/postgres'))
  await sql.unsafe(`create role ${role} login password 'secret'`)
  const lines: string[] = []
  const env = { MIGRATION_DATABASE_URL: url.href, DATABASE_URL: '', LOG_LEVEL: 'warn' }
  url.username = role
  url.password = 'secret'
  env.DATABASE_URL = url.href
  const logStream = { write: (line: string) => void lines.push(line) }
  const app = await startApp(t, 'postgres', env, { logStream })
  await sql`
    insert into tasks (user_id, id, title, completed)
    select 'bob', gen_random_uuid(), n::text, false from generate_series(1, ${MANY}::int) n`
  return {
    service: { sql, outside, role, database: url.pathname.slice(1) },
    alice: await clientOf(app, 'alice'),
    bob: await clientOf(app, 'bob'),
    lines
  }
}

t.test('a refusal by the database is 503, never 500', async (t) => {
  // Each state has a database and a role of its own. The log has at most one line a second, and all tests wait for it
  // at the same time.
  t.jobs = 4
  for (const [what, code, begin, end] of OUTAGES) {
    t.test(`while ${what}, with some log lines`, async (t) => {
      const { service, alice, bob, lines } = await start(t)
      const { id } = (await alice('POST', '', { title: 'Buy milk' })).json
      const began = performance.now()
      await begin(service)
      await until(async () => {
        for (const answer of await everyRequest(alice, bob, id)) {
          if (answer.status < 500) continue
          expectProblem(t, answer, 'unavailable')
          t.match(answer.headers['retry-after'], /^\d+$/)
        }
        return lines.some((line) => JSON.parse(line).err?.code === code)
      })
      const seconds = Math.ceil((performance.now() - began) / 1_000)
      // Each lost connection also has a line.
      const refused = lines
        .map((line) => JSON.parse(line))
        .filter(({ msg }) => msg !== 'a connection to the database was lost')
      t.ok(refused.length <= seconds + 1, `${refused.length} lines in ${seconds} s`)
      for (const { msg, err } of refused) {
        t.equal(msg, 'requests refused')
        t.notMatch(err.message, /^the database is unavailable: /, 'it says what PostgreSQL said')
      }
      if (end === undefined) return
      await end(service)
      await until(
        async () => (await everyRequest(alice, bob, id)).every(({ status }) => status < 500),
        RECOVERY_MS
      )
    })
  }
})

/** Wrong statements of the service itself. */
const MISTAKES: [code: string, text: string][] = [
  ['42601', 'selec 1'],
  ['42P02', 'select $2::int'],
  ['42702', 'select n from (values (1)) a (n), (values (1)) b (n)'],
  ['42803', 'select n, count(*) from (values (1)) a (n)'],
  ['42804', 'select case when 1 then 2 end'],
  ['22012', 'select 1 / 0'],
  ['22P02', `select 'a'::int`],
  ['21000', 'select (values (1), (2))'],
  ['23505', 'insert into once values (1), (1)'],
  ['23514', 'insert into once values (-1)']
]

t.test('a bug in a statement is a 500, with its stack in the log', async (t) => {
  const url = await migratedDatabase(t)
  await sqlClient(t, url)`create table once (n int primary key check (n > 0))`
  const lines: string[] = []
  addToNextApp((app) => {
    app.get('/api/mistake/:n', async ({ params }) => {
      const [, text] = MISTAKES[(params as { n: number }).n] as (typeof MISTAKES)[0]
      const statement = { toSQL: () => ({ sql: text, params: [] }) } as unknown as BuiltStatement<unknown>
      return app.db.prepareWrite(statement, () => ({ user: 'anybody', task: undefined }))({})
    })
  })
  const logStream = { write: (line: string) => void lines.push(line) }
  const app = await startApp(t, 'postgres', { DATABASE_URL: url, LOG_LEVEL: 'warn' }, { logStream })
  const alice = await clientOf(app, 'alice')
  for (const [n, [code]] of MISTAKES.entries()) {
    expectProblem(t, await alice('GET', `/api/mistake/${n}`), 'internal', code)
    t.match(JSON.parse(lines.pop() as string), { level: 50, err: { code, stack: /\n +at / } })
  }
})
