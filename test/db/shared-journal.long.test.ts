import { randomUUID } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate as migrateByDrizzle } from 'drizzle-orm/postgres-js/migrator'
import type postgres from 'postgres'
import { type Database, openDatabase } from '../../db/index.js'
import { migrate } from '../../db/migrate.js'
import { taskRepository } from '../../db/tasks.js'
import { loadConfig } from '../../src/config.js'
import { clientOf, startApp } from '../support/api.js'
import { emptyDatabase, KINDS, sqlClient } from '../support/databases.js'
import { EARLIER, earlierMigrate } from '../support/earlier-migrate.js'
import { emptyFolder } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

const HASHES = EARLIER.map(({ hash }) => hash).sort()

async function open(t: Test, env: Record<string, string>): Promise<Database> {
  const db = await openDatabase(loadConfig(env).database)
  t.teardown(() => db.close())
  return db
}

/** A database of an earlier version of the service, and a client for it. */
async function earlierDatabase(t: Test) {
  const DATABASE_URL = await emptyDatabase(t)
  const db = await open(t, { DATABASE_URL })
  await db.withAdminConnection(earlierMigrate)
  return { DATABASE_URL, db, sql: sqlClient(t, DATABASE_URL) }
}

const sharedRows = async (sql: postgres.Sql) =>
  [...(await sql`select hash, created_at::float8 as at from drizzle.__drizzle_migrations order by id`)].map(
    (row) => ({ ...row })
  )

const ownHashes = async (sql: postgres.Sql) =>
  (await sql`select hash from tasks_migrations`).map(({ hash }) => hash).sort()

/** Migrations of another drizzle application. Each creates one table, and has one of the given times. */
function frontendMigrations(t: Test, tables: Record<string, number>): string {
  const folder = emptyFolder(t)
  mkdirSync(join(folder, 'meta'))
  const entries = Object.entries(tables).map(([table, when], idx) => {
    writeFileSync(join(folder, `${table}.sql`), `create table ${table} (id int)`)
    return { idx, version: '7', when, tag: table, breakpoints: true }
  })
  writeFileSync(
    join(folder, 'meta/_journal.json'),
    JSON.stringify({ version: '7', dialect: 'postgresql', entries })
  )
  return folder
}

async function migrateFrontend(sql: postgres.Sql, migrationsFolder: string): Promise<string[]> {
  await migrateByDrizzle(drizzle(sql), { migrationsFolder })
  const tables =
    await sql`select tablename from pg_tables where schemaname = 'public' and tablename like 'f\_%'`
  return tables.map(({ tablename }) => tablename).sort()
}

t.test('another drizzle application on the same database applies all its migrations', async (t) => {
  t.test('on a database of this version', async (t) => {
    const DATABASE_URL = await emptyDatabase(t)
    await (await open(t, { DATABASE_URL })).withAdminConnection(migrate)
    const sql = sqlClient(t, DATABASE_URL)
    t.equal((await sql`select from pg_namespace where nspname = 'drizzle'`).length, 0)
    const folder = frontendMigrations(t, { f_old: 1_000, f_new: Date.now() })
    t.strictSame(await migrateFrontend(sql, folder), ['f_new', 'f_old'])
  })

  t.test('on a database of an earlier version', async (t) => {
    const { db, sql } = await earlierDatabase(t)
    const folder = frontendMigrations(t, { f_old: 1_000 })
    t.strictSame(await migrateFrontend(sql, folder), [], 'which is what was wrong with that version')
    await db.withAdminConnection(migrate)
    t.strictSame(await migrateFrontend(sql, folder), ['f_old'])
    await db.withAdminConnection(migrate)
    t.strictSame(await migrateFrontend(sql, frontendMigrations(t, { f_old: 1_000, f_2: 1_001 })), [
      'f_2',
      'f_old'
    ])
  })
})

for (const kind of KINDS) {
  t.test(`the ${kind} database of an earlier version is migrated with its tasks`, async (t) => {
    const db = await open(
      t,
      kind === 'embedded' ? { DATA_DIR: emptyFolder(t) } : { DATABASE_URL: await emptyDatabase(t) }
    )
    await db.withAdminConnection(earlierMigrate)
    const { id } = await taskRepository(db).create('alice', { title: 'Buy milk' })
    for (let times = 0; times < 3; times++) await db.withAdminConnection(migrate)
    t.match(await taskRepository(db).get('alice', id), { title: 'Buy milk' })
  })
}

t.test('rows of other applications do not change, and ours stay for earlier versions', async (t) => {
  const { db, sql } = await earlierDatabase(t)
  await sql`insert into drizzle.__drizzle_migrations (hash, created_at)
    values ('older', 5), ('newer', ${Date.now() + 1e9}), ('zero', 0), ('none', null)`
  const [first, second, ...others] = await sharedRows(sql)
  await db.withAdminConnection(migrate)
  t.strictSame(await sharedRows(sql), [{ ...first, at: 0 }, { ...second, at: 0 }, ...others])
  t.strictSame(await ownHashes(sql), HASHES)

  await db.withAdminConnection(earlierMigrate)
  t.equal((await sharedRows(sql)).length, 2 + others.length, 'an earlier version finds nothing missing')
})

t.test('the shared journal is copied once: later changes have no effect', async (t) => {
  const { db, sql } = await earlierDatabase(t)
  await db.withAdminConnection(migrate)
  await sql`update drizzle.__drizzle_migrations set created_at = 7`
  await db.withAdminConnection(migrate)
  t.ok((await sharedRows(sql)).every(({ at }) => at === 7))
  await sql`drop schema drizzle cascade`
  await db.withAdminConnection(migrate)
  t.strictSame(await ownHashes(sql), HASHES)
  t.equal((await sql`select from pg_namespace where nspname = 'drizzle'`).length, 0)
})

t.test('replicas of both versions start at the same time, in any order', async (t) => {
  for (let round = 0; round < 5; round++) {
    const { DATABASE_URL, sql } = await earlierDatabase(t)
    const replicas = await Promise.all(Array.from({ length: 8 }, () => open(t, { DATABASE_URL })))
    await Promise.all(
      replicas.map((db, n) => db.withAdminConnection((n + round) % 2 === 0 ? migrate : earlierMigrate))
    )
    t.strictSame(await ownHashes(sql), HASHES)
    t.strictSame(
      (await sharedRows(sql)).map(({ at }) => at),
      [0, 0]
    )
  }
})

t.test('an earlier version creates the database while this one starts', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  const [earlier, now] = [await open(t, { DATABASE_URL }), await open(t, { DATABASE_URL })]
  let going: Promise<void> | undefined
  await earlier.withAdminConnection((orm) =>
    orm.transaction(async (tx) => {
      await earlierMigrate(tx)
      // It has seen an empty database, and waits for the lock.
      going = now.withAdminConnection(migrate)
      const sql = sqlClient(t, DATABASE_URL)
      while ((await sql`select from pg_locks where locktype = 'advisory' and not granted`).length === 0);
    })
  )
  await going
  t.strictSame(await ownHashes(sqlClient(t, DATABASE_URL)), HASHES)
})

t.test('an earlier replica continues while this version migrates, and can restart afterwards', async (t) => {
  const { DATABASE_URL, db: running } = await earlierDatabase(t)
  const tasks = taskRepository(running)
  const { id } = await tasks.create('alice', { title: 'Buy milk' })
  const app = await startApp(t, 'postgres', { DATABASE_URL })
  await tasks.update('alice', id, { title: 'Buy bread' })
  t.match((await (await clientOf(app, 'alice'))('GET', `/${id}`)).json, { title: 'Buy bread' })

  const restarted = await open(t, { DATABASE_URL })
  await restarted.withAdminConnection(earlierMigrate)
  await taskRepository(restarted).toggle('alice', id)
  t.match((await (await clientOf(app, 'alice'))('GET', `/${id}`)).json, { completed: true })
})

t.test('a journal of another application that this role may not read is ignored', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  const admin = sqlClient(t, DATABASE_URL)
  const role = `app_${randomUUID().replaceAll('-', '')}`
  await admin.unsafe(`
    create schema drizzle;
    create table drizzle.__drizzle_migrations (id serial primary key, hash text not null, created_at bigint);
    create role ${role} login;
    grant create on schema public to ${role}`)
  t.teardown(() => admin.unsafe(`drop owned by ${role} cascade; drop role ${role}`))
  const db = await open(t, { DATABASE_URL: DATABASE_URL.replace('postgres@', `${role}@`) })
  await db.withAdminConnection(migrate)
  t.ok((await ownHashes(admin)).length >= HASHES.length)
})

t.test('a second installation in another schema runs its own migrations', async (t) => {
  const { DATABASE_URL, sql } = await earlierDatabase(t)
  const role = `second_${randomUUID().replaceAll('-', '')}`
  await sql.unsafe(
    `create role ${role} login superuser; create schema ${role}; alter role ${role} set search_path = ${role}`
  )
  t.teardown(() => sql.unsafe(`drop owned by ${role} cascade; drop role ${role}`))
  const second = await open(t, { DATABASE_URL: DATABASE_URL.replace('postgres@', `${role}@`) })
  await second.withAdminConnection(migrate)
  t.match(await taskRepository(second).list('alice'), { length: 0 })
  t.equal((await sql.unsafe(`select from ${role}.tasks`)).length, 0)
})
