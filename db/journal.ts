import { inArray, sql } from 'drizzle-orm'
import type { MigrationMeta } from 'drizzle-orm/migrator'
import { bigint, pgSchema, pgTable, text, timestamp } from 'drizzle-orm/pg-core'
import type { Orm } from './driver.js'

/**
 * The applied migrations. Drizzle's default table is shared by all applications that use one database. Its migrator skips
 * a migration that is older than the newest row, even if that is another application's (drizzle-team/drizzle-orm#874).
 */
export const journal = pgTable('tasks_migrations', {
  hash: text().primaryKey(),
  applied_at: timestamp({ withTimezone: true }).notNull().defaultNow()
})

/** Drizzle's default table. Earlier versions of this service recorded their migrations there. */
const shared = pgSchema('drizzle').table('__drizzle_migrations', {
  hash: text().notNull(),
  created_at: bigint({ mode: 'number' })
})

export async function missing(orm: Orm, migrations: MigrationMeta[]): Promise<MigrationMeta[]> {
  if (!(await exists(orm, 'tasks_migrations'))) return migrations
  const hashes = new Set((await orm.select({ hash: journal.hash }).from(journal)).map(({ hash }) => hash))
  return migrations.filter(({ hash }) => !hashes.has(hash))
}

/** Creates the journal unless it exists. The caller must hold the advisory lock. */
export async function makeJournal(tx: Orm, migrations: MigrationMeta[]): Promise<void> {
  if (await exists(tx, 'tasks_migrations')) return
  await tx.execute(
    sql`create table ${journal} (hash text primary key, applied_at timestamptz not null default now())`
  )
  // Without a tasks table, the rows of the shared journal belong to another installation, in another schema.
  if (await exists(tx, 'tasks')) await takeOver(tx, migrations)
}

/**
 * Copies the rows of earlier versions. The originals stay, because a replica of an earlier version may start at any time,
 * and looks for their hashes. Their time becomes 0, so that drizzle's migrator skips no other application's migration.
 */
async function takeOver(tx: Orm, migrations: MigrationMeta[]): Promise<void> {
  const [rights] = await tx
    .select({
      read: sql<boolean>`has_table_privilege(c.oid, 'select')`,
      change: sql<boolean>`has_table_privilege(c.oid, 'update')`
    })
    .from(sql`pg_class c join pg_namespace n on n.oid = c.relnamespace`)
    .where(
      sql`n.nspname = 'drizzle' and c.relname = '__drizzle_migrations' and has_schema_privilege(n.oid, 'usage')`
    )
  if (!rights?.read) return
  const isOurs = inArray(
    shared.hash,
    migrations.map(({ hash }) => hash)
  )
  const ours = await tx.selectDistinct({ hash: shared.hash }).from(shared).where(isOurs)
  if (ours.length === 0) return
  await tx.insert(journal).values(ours)
  if (rights.change) await tx.update(shared).set({ created_at: 0 }).where(isOurs)
}

/**
 * True if the role's search path finds such a table. `to_regclass` would not do: it may use a cache from before this
 * transaction waited for its lock.
 */
async function exists(orm: Orm, table: string): Promise<boolean> {
  const found = await orm
    .select({ oid: sql`oid` })
    .from(sql`pg_class`)
    .where(sql`relname = ${table} and pg_table_is_visible(oid)`)
  return found.length > 0
}
