import { randomUUID } from 'node:crypto'
import { clientOf, SECRET, startApp } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { blocksOf } from '../support/markdown.js'
import { startProcess } from '../support/process.js'
import { migrateWith, migrationRefusal, startRefusal } from '../support/start.js'
import t, { type Test } from '../support/tap.js'

const [ROLES, ...others] = blocksOf('docs/roles.md').filter(({ language }) => language === 'sql')

/** A new database with the page's roles. They have other names, because roles belong to the whole server. */
async function withRoles(t: Test) {
  const url = await emptyDatabase(t)
  const admin = sqlClient(t, url)
  const mark = randomUUID().slice(0, 8)
  const [owner, service] = [`tasks_owner_${mark}`, `tasks_service_${mark}`]
  const code = String(ROLES?.code)
    .replaceAll('tasks_owner', owner)
    .replaceAll('tasks_service', service)
    .replaceAll('on database tasks', `on database ${new URL(url).pathname.slice(1)}`)
  await admin.unsafe(code)
  t.teardown(() =>
    admin.unsafe(`drop owned by ${owner}, ${service} cascade; drop role ${owner}; drop role ${service}`)
  )
  const urlOf = (role: string) => url.replace('postgres@', `${role}:s3cretpassword@`)
  return { admin, owner, service, ownerUrl: urlOf(owner), serviceUrl: urlOf(service) }
}

/** As the page says, once, before the service starts. */
async function migrated(t: Test) {
  const roles = await withRoles(t)
  await migrateWith({ DATABASE_URL: roles.serviceUrl, MIGRATION_DATABASE_URL: roles.ownerUrl })
  return roles
}

t.test('the page shows the roles in one block', async (t) => {
  t.ok(ROLES)
  t.strictSame(others, [])
})

t.test('the role of the service', async (t) => {
  const { admin, owner, service, ownerUrl, serviceUrl } = await migrated(t)

  t.test('can run all six operations', async (t) => {
    const app = await startApp(t, 'postgres', { DATABASE_URL: serviceUrl })
    const alice = await clientOf(app, 'alice')
    const { status, json } = await alice('POST', '', { title: 'a' })
    t.equal(status, 201)
    t.equal((await alice('POST', '', { title: 'b' }, { 'idempotency-key': 'once' })).status, 201)
    t.equal((await alice('POST', '', { title: 'b' }, { 'idempotency-key': 'once' })).status, 201)
    t.equal((await alice('GET')).json.length, 2)
    t.equal((await alice('GET', `/${json.id}`)).status, 200)
    t.equal((await alice('PATCH', `/${json.id}`, { title: 'c' })).status, 200)
    t.equal((await alice('PUT', `/${json.id}`, { title: 'd' })).status, 200)
    t.equal((await alice('PATCH', `/${json.id}/complete`)).status, 200)
    t.equal((await alice('DELETE', `/${json.id}`)).status, 204)
  })

  t.test('has exactly these rights, and owns nothing', async (t) => {
    const rights = await admin`
      select c.relname as table, p.name as right
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p(name)
      where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relkind in ('r', 'p', 'v', 'm', 'f')
        and has_table_privilege(${service}, c.oid, p.name)
      order by 1, 2`
    t.strictSame(
      rights.map(({ table, right }) => `${right} ${table}`),
      ['DELETE tasks', 'INSERT tasks', 'SELECT tasks', 'UPDATE tasks', 'SELECT tasks_migrations']
    )
    const [sequences] = await admin`
      select count(*)::int as count from pg_class c
      where case when relkind = 'S' then has_sequence_privilege(${service}, c.oid, 'usage, select, update') end`
    t.equal(sequences?.count, 0)
    const [role] = await admin`
      select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
        (select count(*)::int from pg_shdepend where refobjid = r.oid and deptype = 'o') as owned,
        (select count(*)::int from pg_auth_members where member = r.oid) as memberships
      from pg_roles r where rolname = ${service}`
    t.strictSame(
      { ...role },
      {
        rolsuper: false,
        rolcreaterole: false,
        rolcreatedb: false,
        rolreplication: false,
        rolbypassrls: false,
        owned: 0,
        memberships: 0
      }
    )
  })

  t.test('may do nothing else', async (t) => {
    const asOwner = sqlClient(t, ownerUrl)
    await asOwner`create table secrets (id int)`
    await asOwner`create function answer() returns int language sql as 'select 42'`
    const sql = sqlClient(t, serviceUrl)
    for (const statement of [
      'create table mine (id int)',
      'create temporary table mine (id int)',
      'create schema mine',
      "create function mine() returns int language sql as 'select 1'",
      'create extension file_fdw',
      'create role mine',
      'drop table tasks',
      'truncate tasks',
      'alter table tasks disable row level security',
      'alter table tasks add column mine int',
      'create index on tasks (title)',
      'create trigger mine before insert on tasks for each row execute function suppress_redundant_updates_trigger()',
      'select * from secrets',
      'select answer()',
      'select * from pg_authid',
      "select pg_read_file('PG_VERSION')",
      "select lo_import('/etc/hostname')",
      "copy tasks to program 'cat'",
      "copy tasks to '/tmp/tasks'",
      "copy tasks from program 'id'",
      'delete from tasks_migrations',
      "insert into tasks_migrations (hash) values ('mine')",
      `set role ${owner}`,
      'set session authorization postgres',
      `alter role ${service} bypassrls`,
      "alter system set log_statement = 'all'"
    ]) {
      await t.rejects(sql.unsafe(statement), { code: '42501' }, statement)
    }
    t.equal((await sql`select from tasks`).length, 1, 'the table is as it was')
  })

  t.test('starts the service as a process, also several at the same time', async (t) => {
    const env = { JWT_SECRET: SECRET, DATABASE_URL: serviceUrl }
    await (await startProcess(t, { ...env, NODE_ENV: 'production' })).ready()
    const both = { ...env, MIGRATION_DATABASE_URL: ownerUrl }
    await Promise.all(Array.from({ length: 3 }, () => startApp(t, 'postgres', both)))
  })
})

t.test('without MIGRATION_DATABASE_URL, a missing migration stops the start in one line', async (t) => {
  const { admin, ownerUrl, serviceUrl } = await withRoles(t)
  const refused = async (t: Test, what: RegExp) => {
    const env = { JWT_SECRET: SECRET, DATABASE_URL: serviceUrl, NODE_ENV: 'production' }
    const line = await startRefusal(env)
    t.match(line, /^DATABASE_URL: [^\n]*run npm run db:migrate as the owner[^\n]*$/)
    t.match(line, what)
    t.notMatch(line, 's3cretpassword')
  }
  t.test('on an empty database', (t) => refused(t, /permission denied for schema public/))

  t.test('when the role may not read the journal', async (t) => {
    await migrateWith({ DATABASE_URL: ownerUrl })
    await refused(t, /permission denied for table tasks_migrations/)
  })

  t.test('when some are missing', async (t) => {
    await startApp(t, 'postgres', { DATABASE_URL: serviceUrl, MIGRATION_DATABASE_URL: ownerUrl })
    await admin`delete from tasks_migrations`
    await refused(t, /permission denied for schema public/)
  })
})

t.test('a start is refused if the role cannot use every task', async (t) => {
  const { admin, service, ownerUrl, serviceUrl } = await migrated(t)
  const env = { JWT_SECRET: SECRET, DATABASE_URL: serviceUrl, NODE_ENV: 'production' }
  const both = { ...env, MIGRATION_DATABASE_URL: ownerUrl }
  const refusedBy = async (sql: string, settings: Record<string, string>, line: RegExp) => {
    await admin.unsafe(sql)
    t.match(await startRefusal(settings), line)
  }

  await refusedBy(
    `revoke update, delete on tasks from ${service}`,
    env,
    /^DATABASE_URL: [^\n]*its role may not (update, delete|delete, update) in the table tasks$/
  )
  await migrateWith(both)
  await refusedBy(
    'alter table tasks enable row level security',
    both,
    /^DATABASE_URL: [^\n]*row-level security without a policy hides the rows of tasks: disable it$/
  )
  await admin`create policy everything on tasks using (true)`
  await (await startApp(t, 'postgres', env)).close()
  await refusedBy(
    `create schema other; grant usage on schema other to ${service}; alter role ${service} set search_path = other`,
    both,
    /^DATABASE_URL: [^\n]*does not find the tasks of MIGRATION_DATABASE_URL: the schemas of search_path are other, and public there$/
  )
  await refusedBy(
    `alter role ${service} set search_path = nowhere`,
    env,
    /^DATABASE_URL: [^\n]*no schema in its search_path that it may use/
  )
})

t.test('a start on a new database that accepts no writes is refused', async (t) => {
  const { ownerUrl } = await withRoles(t)
  const DATABASE_URL = `${ownerUrl}&options=-c%20default_transaction_read_only%3Don`
  const env = { JWT_SECRET: SECRET, DATABASE_URL, NODE_ENV: 'production' }
  t.match(
    await startRefusal(env),
    /^DATABASE_URL: [^\n]*it accepts no writes, so its schema cannot be migrated/
  )
})

t.test('an error of the role that migrates has its variable, and no password', async (t) => {
  const { serviceUrl } = await withRoles(t)
  for (const [what, MIGRATION_DATABASE_URL, line] of [
    ['no right to migrate', serviceUrl, /the database cannot be used: .*permission denied/],
    [
      'no such role',
      serviceUrl.replace(/\/\/\w+:/, '//nobody_here:'),
      /the database cannot be used: .*"nobody_here" does not exist/
    ]
  ] as const) {
    const refusal = await migrationRefusal({ DATABASE_URL: serviceUrl, MIGRATION_DATABASE_URL })
    t.match(refusal, /^MIGRATION_DATABASE_URL: [^\n]+$/, what)
    t.match(refusal, line)
    t.notMatch(refusal, 's3cretpassword')
  }
})
