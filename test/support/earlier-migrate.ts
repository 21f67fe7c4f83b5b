import { sql } from 'drizzle-orm'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import type { Orm } from '../../db/driver.js'

/** The migrations of the last version with the shared journal. */
export const EARLIER = readMigrationFiles({ migrationsFolder: 'db/migrations' }).slice(0, 2)

/** Migrates a database like earlier versions, which recorded their migrations in drizzle's default table. */
export async function earlierMigrate(orm: Orm, service?: string): Promise<void> {
  if (service === undefined && (await missing(orm)).length === 0) return
  await orm.transaction(async (tx) => {
    await tx.execute(sql`select pg_advisory_xact_lock(${0x7461736b736d6967n})`)
    await tx.execute(sql`create schema if not exists drizzle`)
    await tx.execute(
      sql`create table if not exists drizzle.__drizzle_migrations (id serial primary key, hash text not null, created_at bigint)`
    )
    for (const migration of await missing(tx)) {
      for (const statement of migration.sql) await tx.execute(sql.raw(statement))
      await tx.execute(
        sql`insert into drizzle.__drizzle_migrations (hash, created_at) values (${migration.hash}, ${migration.folderMillis})`
      )
    }
    if (service === undefined) return
    const role = sql.identifier(service)
    await tx.execute(sql`grant usage on schema drizzle to ${role}`)
    await tx.execute(sql`grant select on drizzle.__drizzle_migrations to ${role}`)
    await tx.execute(sql`grant select, insert, update, delete on tasks to ${role}`)
  })
}

async function missing(orm: Orm) {
  const [journal] = await orm
    .select({ exists: sql<boolean>`to_regclass('drizzle.__drizzle_migrations') is not null` })
    .from(sql`(select) as nothing`)
  if (!journal?.exists) return EARLIER
  const rows = await orm.select({ hash: sql<string>`hash` }).from(sql`drizzle.__drizzle_migrations`)
  return EARLIER.filter(({ hash }) => rows.every((row) => row.hash !== hash))
}
