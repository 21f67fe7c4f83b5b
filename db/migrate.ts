import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { sql } from 'drizzle-orm'
import { type MigrationMeta, readMigrationFiles } from 'drizzle-orm/migrator'
import { bigint, pgSchema, serial, text } from 'drizzle-orm/pg-core'
import type { DatabaseConfig } from '../src/config.js'
import { StartError, Unavailable } from '../src/errors.js'
import { type Database, type Orm, openDatabase } from './client.js'
import { causeOf } from './outage.js'

/** Resolved through package.json's "imports", so that the built tree finds the same folder as the source. */
const migrationsFolder = dirname(
  dirname(createRequire(import.meta.url).resolve('#migrations/meta/_journal.json'))
)

/** Any constant does, as long as every replica takes the same: "tasksmig" in ASCII. */
const ADVISORY_LOCK = 0x7461736b736d6967n

/** Where drizzle-kit notes what was applied; kept as it does, so that its own tools go on working. */
const applied = pgSchema('drizzle').table('__drizzle_migrations', {
  id: serial().primaryKey(),
  hash: text().notNull(),
  created_at: bigint({ mode: 'number' })
})

const UNDEFINED_TABLE = '42P01'

/** How long the start waits for the database before it gives up. */
const START_MS = 10_000

/**
 * Opens the database and brings it up to date.
 *
 * @throws StartError when it cannot be used
 */
export async function openMigrated(config: DatabaseConfig): Promise<Database> {
  const db = await openDatabase(config)
  try {
    await db.ping(START_MS)
    await db.administer(migrate)
    return db
  } catch (error) {
    await db.close()
    const variable = config.kind === 'embedded' ? 'DATA_DIR' : 'DATABASE_URL'
    throw new StartError(`${variable}: the database cannot be used: ${reason(causeOf(error))}`)
  }
}

function reason(error: unknown): string {
  if (error instanceof Unavailable) return 'it does not answer'
  const { name, message, code } = error as Error & { code?: string }
  // When a host name has several addresses, Node's error has no message of its own.
  return `${name}: ${message || code}`
}

/**
 * Brings the schema up to date, once, however many processes start at the same time: all that is missing, in one
 * transaction. A database that is up to date is only read, so a role that may not change the schema can start the
 * service.
 *
 * Drizzle's own migrator takes no lock, and skips without a word what is older than the newest migration applied.
 */
export async function migrate(orm: Orm): Promise<void> {
  const migrations = readMigrationFiles({ migrationsFolder })
  if ((await missing(orm, migrations)).length === 0) return
  await orm.transaction(async (tx) => {
    // Ends with the transaction, so it works through PgBouncer and nothing can leave it behind.
    await tx.execute(sql`select pg_advisory_xact_lock(${ADVISORY_LOCK})`)
    await tx.execute(sql`create schema if not exists drizzle`)
    await tx.execute(
      sql`create table if not exists ${applied} (id serial primary key, hash text not null, created_at bigint)`
    )
    for (const migration of await missing(tx, migrations)) {
      for (const statement of migration.sql) await tx.execute(sql.raw(statement))
      await tx.insert(applied).values({ hash: migration.hash, created_at: migration.folderMillis })
    }
  })
}

async function missing(orm: Orm, migrations: MigrationMeta[]): Promise<MigrationMeta[]> {
  try {
    const hashes = new Set((await orm.select({ hash: applied.hash }).from(applied)).map(({ hash }) => hash))
    return migrations.filter(({ hash }) => !hashes.has(hash))
  } catch (error) {
    if ((causeOf(error) as { code?: string }).code === UNDEFINED_TABLE) return migrations
    throw error
  }
}
