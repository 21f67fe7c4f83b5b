import { randomUUID } from 'node:crypto'
import { openDatabase } from '../../db/index.js'
import { migrate } from '../../db/migrate.js'
import { loadConfig } from '../../src/config.js'
import { clientOf, startApp } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { earlierMigrate } from '../support/earlier-migrate.js'
import t, { type Test } from '../support/tap.js'

// Each test has a database of its own and mostly waits, so they run at the same time.
t.jobs = 4

/** The attempts of a role that has every right on a table. */
const ATTEMPTS = Object.entries({ tasks: 'title', tasks_migrations: 'hash' }).flatMap(([table, column]) => [
  `select * from ${table}`,
  `insert into ${table} select * from ${table}`,
  `update ${table} set ${column} = ${column}`,
  `delete from ${table}`,
  `truncate ${table}`,
  `create trigger mine before insert on ${table} for each row execute function suppress_redundant_updates_trigger()`
])

/**
 * A new database. ANON and SERVICE in `sql` are replaced by roles of this test, to which default privileges give
 * rights.
 */
async function databaseWith(t: Test, sql: string) {
  const DATABASE_URL = await emptyDatabase(t)
  const admin = sqlClient(t, DATABASE_URL)
  const mark = randomUUID().replaceAll('-', '')
  const roles = { anon: `"Anon ${mark}"`, service: `service_${mark}`, owner: `owner_${mark}` }
  const named = (text: string) =>
    text.replaceAll('ANON', roles.anon).replaceAll('SERVICE', roles.service).replaceAll('OWNER', roles.owner)
  await admin.unsafe(
    named(`
    create role ANON; create role SERVICE login; create role OWNER login;
    grant create on schema public to OWNER;
    grant create on database ${new URL(DATABASE_URL).pathname.slice(1)} to OWNER;
    grant usage on schema public to ANON, SERVICE;
    ${sql}`)
  )
  t.teardown(() =>
    admin.unsafe(named('drop owned by ANON, SERVICE, OWNER cascade; drop role ANON, SERVICE, OWNER'))
  )
  const urlOf = (role: string) => DATABASE_URL.replace('postgres@', `${role}@`)
  return {
    DATABASE_URL,
    admin,
    named,
    serviceUrl: urlOf(roles.service),
    ownerUrl: urlOf(roles.owner),
    ...roles
  }
}

type Made = Awaited<ReturnType<typeof databaseWith>>

/** The `ATTEMPTS` that succeed with this role on our tables. */
async function possible({ admin }: Made, role: string): Promise<string[]> {
  const possible: string[] = []
  for (const attempt of ATTEMPTS) {
    const code = await admin
      .begin(async (tx) => {
        await tx.unsafe(`set local role ${role}`)
        await tx.unsafe(attempt)
        throw Object.assign(new Error(), { code: 'done' })
      })
      .catch((error) => error.code)
    if (code !== '42501') possible.push(attempt)
  }
  return possible
}

async function asEarlier(url: string, service?: string) {
  const db = await openDatabase(loadConfig({ DATABASE_URL: url }).database)
  await db.withAdminConnection((orm) => earlierMigrate(orm, service))
  await db.close()
}

async function serves(t: Test, env: Record<string, string>) {
  const app = await startApp(t, 'postgres', env)
  const alice = await clientOf(app, 'alice')
  const { status, json } = await alice('POST', '', { title: 'Buy milk' })
  t.equal(status, 201)
  t.equal((await alice('PATCH', `/${json.id}/complete`)).status, 200)
  t.match((await alice('GET')).json, [{ id: json.id, completed: true }])
  t.equal((await alice('DELETE', `/${json.id}`)).status, 204)
  return app
}

const DEFAULTS: [what: string, sql: string][] = [
  ["Supabase's", 'alter default privileges in schema public grant all on tables to ANON'],
  ['those of every schema', 'alter default privileges grant all on tables to ANON'],
  ['for everybody', 'alter default privileges grant all on tables to public'],
  ['for reading only', 'alter default privileges in schema public grant select on tables to ANON'],
  ['that may be passed on', 'alter default privileges grant all on tables to ANON with grant option']
]

for (const [what, sql] of DEFAULTS) {
  t.test(`default privileges, ${what}, give no rights on tasks`, async (t) => {
    t.test('on a new database', async (t) => {
      const made = await databaseWith(t, sql)
      await serves(t, { DATABASE_URL: made.DATABASE_URL })
      t.strictSame(await possible(made, made.anon), [])
    })

    t.test('on a database of an earlier version', async (t) => {
      const made = await databaseWith(t, sql)
      await asEarlier(made.DATABASE_URL)
      t.ok((await possible(made, made.anon)).includes('select * from tasks'), 'which was open')
      await serves(t, { DATABASE_URL: made.DATABASE_URL })
      t.strictSame(await possible(made, made.anon), [])
    })

    t.test('with a role for migrations', async (t) => {
      const made = await databaseWith(t, sql.replace('privileges', 'privileges for role OWNER'))
      await asEarlier(made.ownerUrl, made.service)
      t.ok((await possible(made, made.anon)).includes('select * from tasks'), 'which was open')
      await serves(t, { DATABASE_URL: made.serviceUrl, MIGRATION_DATABASE_URL: made.ownerUrl })
      t.strictSame(await possible(made, made.anon), [])
      await serves(t, { DATABASE_URL: made.serviceUrl })
    })
  })
}

t.test('a right that was passed on is revoked with the original one', async (t) => {
  const made = await databaseWith(t, `create role SERVICE_reader; ${DEFAULTS[4]?.[1]}`)
  t.teardown(() =>
    made.admin.unsafe(made.named('drop owned by SERVICE_reader cascade; drop role SERVICE_reader'))
  )
  await asEarlier(made.DATABASE_URL)
  await made.admin.unsafe(made.named('set role ANON; grant select on tasks to SERVICE_reader; reset role'))
  await serves(t, { DATABASE_URL: made.DATABASE_URL })
  t.strictSame(await possible(made, made.named('SERVICE_reader')), [])
})

t.test('the next start closes a database that was restored from a dump', async (t) => {
  const made = await databaseWith(t, DEFAULTS[0]?.[1] as string)
  await serves(t, { DATABASE_URL: made.DATABASE_URL })
  // A restore creates the tables again.
  await made.admin.unsafe(made.named('grant all on tasks, tasks_migrations to ANON'))
  await serves(t, { DATABASE_URL: made.DATABASE_URL })
  t.strictSame(await possible(made, made.anon), [])
})

t.test('partitions of the table are closed too', async (t) => {
  const made = await databaseWith(t, 'alter default privileges grant all on tables to ANON')
  const { admin, anon, DATABASE_URL } = made
  await serves(t, { DATABASE_URL })
  await admin.unsafe(`
    alter table tasks rename to tasks_before;
    create table tasks (like tasks_before including all) partition by hash (user_id);
    create table tasks_only partition of tasks for values with (modulus 1, remainder 0);`)
  const isOpen = async () =>
    (await admin`select has_table_privilege(${anon.slice(1, -1)}, 'tasks_only', 'select') as open`)[0]?.open
  t.equal(await isOpen(), true)
  await serves(t, { DATABASE_URL })
  t.equal(await isOpen(), false)
})

t.test('a role that may not revoke the rights fails with a message about the owner', async (t) => {
  const made = await databaseWith(t, DEFAULTS[1]?.[1] as string)
  await serves(t, { DATABASE_URL: made.serviceUrl, MIGRATION_DATABASE_URL: made.DATABASE_URL })
  await made.admin.unsafe(made.named('grant all on tasks to ANON'))
  await t.rejects(startApp(t, 'postgres', { DATABASE_URL: made.serviceUrl }), {
    name: 'StartError',
    message: `DATABASE_URL: the database cannot be used: this role may not migrate the schema, or not read its version; run npm run db:migrate as the owner of the schema (default privileges open tasks to ${made.anon})`
  })
})

t.test('other rights stay', async (t) => {
  const made = await databaseWith(
    t,
    `alter default privileges for role OWNER grant select, insert, update, delete on tables to SERVICE, ANON`
  )
  await asEarlier(made.ownerUrl)
  await made.admin.unsafe('grant select on tasks to pg_monitor')
  t.test('of the service, even if they come from default privileges', async (t) => {
    await serves(t, { DATABASE_URL: made.serviceUrl, MIGRATION_DATABASE_URL: made.ownerUrl })
    await serves(t, { DATABASE_URL: made.serviceUrl })
    t.strictSame(await possible(made, made.anon), [])
  })

  t.test('of a role to which they were granted explicitly', async (t) => {
    t.strictSame(await possible(made, 'pg_monitor'), ['select * from tasks'])
  })
})

t.test('when the rights are revoked, the next start changes nothing', async (t) => {
  const made = await databaseWith(t, DEFAULTS[0]?.[1] as string)
  const db = await openDatabase(loadConfig({ DATABASE_URL: made.DATABASE_URL }).database)
  t.teardown(() => db.close())
  await db.withAdminConnection(migrate)
  const before = await made.admin`select xmin from pg_class where relname = 'tasks'`
  await db.withAdminConnection(migrate)
  t.strictSame([...(await made.admin`select xmin from pg_class where relname = 'tasks'`)], [...before])
})
