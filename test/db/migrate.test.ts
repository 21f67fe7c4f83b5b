import { randomUUID } from 'node:crypto'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { openDatabase } from '../../db/index.js'
import { journal } from '../../db/journal.js'
import { migrate } from '../../db/migrate.js'
import { loadConfig } from '../../src/config.js'
import { startApp } from '../support/api.js'
import { type DatabaseKind, emptyDatabase, KINDS, sqlClient } from '../support/databases.js'
import { emptyFolder } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

const MIGRATIONS = readMigrationFiles({ migrationsFolder: 'db/migrations' })
const HASHES = MIGRATIONS.map(({ hash }) => hash).sort()

async function open(t: Test, kind: DatabaseKind = 'postgres', env?: Record<string, string>) {
  const { database } = loadConfig(
    env ?? (kind === 'postgres' ? { DATABASE_URL: await emptyDatabase(t) } : { DATA_DIR: emptyFolder(t) })
  )
  const db = await openDatabase(database)
  t.teardown(() => db.close())
  return db
}

const appliedTo = async (sql: ReturnType<typeof sqlClient>) =>
  (await sql`select hash from tasks_migrations`).map(({ hash }) => hash).sort()

for (const kind of KINDS) {
  t.test(`on the ${kind} database every migration is applied once, even if migrate runs again`, async (t) => {
    const db = await open(t, kind)
    for (let times = 0; times < 3; times++) await db.withAdminConnection(migrate)
    const rows = await db.withAdminConnection((orm) => orm.select({ hash: journal.hash }).from(journal))
    t.strictSame(rows.map(({ hash }) => hash).sort(), HASHES)
  })
}

for (const level of ['read committed', 'serializable']) {
  t.test(`five apps start at the same time, and migrate an empty database once: ${level}`, async (t) => {
    const DATABASE_URL = await emptyDatabase(t)
    const sql = sqlClient(t, DATABASE_URL)
    const database = new URL(DATABASE_URL).pathname.slice(1)
    await sql.unsafe(`alter database ${database} set default_transaction_isolation = '${level}'`)
    await Promise.all(Array.from({ length: 5 }, () => startApp(t, 'postgres', { DATABASE_URL })))
    t.strictSame(await appliedTo(sql), HASHES)
  })
}

t.test('a missing migration is applied even if a newer one was applied before', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  const db = await open(t, 'postgres', { DATABASE_URL })
  await db.withAdminConnection(migrate)
  const sql = sqlClient(t, DATABASE_URL)
  // This happens after the merge of a branch with an older migration.
  await sql`delete from tasks_migrations`
  await sql`insert into tasks_migrations (hash) values ('newer')`
  await sql`drop table tasks`
  await db.withAdminConnection(migrate)
  t.strictSame(await appliedTo(sql), [...HASHES, 'newer'].sort())
  t.equal((await sql`select * from tasks`).length, 0)
})

t.test('a failed migration changes nothing, and succeeds when the cause is removed', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  const db = await open(t, 'postgres', { DATABASE_URL })
  const sql = sqlClient(t, DATABASE_URL)
  await sql`create table tasks (mine int)`
  await t.rejects(db.withAdminConnection(migrate), { cause: { code: '42P07' } })
  t.equal((await sql`select from pg_tables where tablename = 'tasks_migrations'`).length, 0)
  await sql`drop table tasks`
  await db.withAdminConnection(migrate)
  t.strictSame(await appliedTo(sql), HASHES)
})

t.test('a role with rights on tasks only starts the service if the schema is up to date', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  await (await open(t, 'postgres', { DATABASE_URL })).withAdminConnection(migrate)
  const admin = sqlClient(t, DATABASE_URL)
  const role = `app_${randomUUID().replaceAll('-', '')}`
  await admin.unsafe(`
    create role ${role} login;
    grant select on tasks_migrations to ${role};
    grant select, insert, update, delete on tasks to ${role}`)
  t.teardown(() => admin.unsafe(`drop owned by ${role}; drop role ${role}`))
  const limited = { DATABASE_URL: DATABASE_URL.replace('postgres@', `${role}@`) }
  const app = await startApp(t, 'postgres', limited)
  await app.db.ping(5_000)
  await app.close()

  await admin`delete from tasks_migrations`
  await t.rejects(startApp(t, 'postgres', limited), { message: /^DATABASE_URL: .*permission denied/ })
})

/** Creates a database with these options of `create database`. */
async function databaseWith(t: Test, options: string): Promise<string> {
  const url = new URL(await emptyDatabase(t))
  const name = `${url.pathname.slice(1)}_x`
  const admin = sqlClient(t, url.href)
  await admin.unsafe(`create database ${name} template template0 strategy file_copy ${options}`)
  t.teardown(() => admin.unsafe(`drop database ${name} with (force)`))
  url.pathname = `/${name}`
  return url.href
}

for (const encoding of ['SQL_ASCII', 'LATIN1', 'EUC_JP']) {
  t.test(`a database with encoding ${encoding} stops the start, and stays empty`, async (t) => {
    const DATABASE_URL = await databaseWith(t, `encoding '${encoding}' lc_collate 'C' lc_ctype 'C'`)
    await t.rejects(startApp(t, 'postgres', { DATABASE_URL }), {
      name: 'StartError',
      message: `DATABASE_URL: the database cannot be used: its encoding is ${encoding}, and must be UTF8, as made by: create database … template template0 encoding 'UTF8'`
    })
    t.strictSame([...(await sqlClient(t, DATABASE_URL)`select from pg_tables where tablename = 'tasks'`)], [])
  })
}

t.test('the encoding is also checked for the role that migrates', async (t) => {
  const MIGRATION_DATABASE_URL = await databaseWith(t, `encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'`)
  await t.rejects(startApp(t, 'postgres', { DATABASE_URL: await emptyDatabase(t), MIGRATION_DATABASE_URL }), {
    name: 'StartError',
    message: /^MIGRATION_DATABASE_URL: .* its encoding is LATIN1/
  })
})

t.test('a UTF8 database may have any locale', async (t) => {
  const DATABASE_URL = await databaseWith(t, `encoding 'UTF8' locale_provider icu icu_locale 'tr' locale 'C'`)
  await t.resolves(startApp(t, 'postgres', { DATABASE_URL }))
})

t.test('a PostgreSQL older than 15 stops the start', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  const sql = sqlClient(t, DATABASE_URL)
  // A function of the same name is found first, and returns another version.
  await sql.unsafe(`
    create schema older;
    create function older.current_setting(name text) returns text language sql as $$
      select case name when 'server_version' then '14.20' when 'server_version_num' then '140020'
        else pg_catalog.current_setting(name) end $$;
    alter database ${new URL(DATABASE_URL).pathname.slice(1)} set search_path = older, pg_catalog, public`)
  await t.rejects(startApp(t, 'postgres', { DATABASE_URL }), {
    name: 'StartError',
    message: 'DATABASE_URL: the database cannot be used: its PostgreSQL is 14.20, and must be 15 or newer'
  })
  await sql.unsafe(`create or replace function older.current_setting(name text) returns text language sql
    as $$ select case name when 'server_version_num' then '150000' else pg_catalog.current_setting(name) end $$`)
  await t.resolves(startApp(t, 'postgres', { DATABASE_URL }), 'version 15 itself starts')
})
