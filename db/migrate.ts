import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { sql } from 'drizzle-orm'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import type { Orm } from './driver.js'
import { DatabaseUnavailable, StartError } from './errors.js'
import { type Database, type DatabaseConfig, openDatabase } from './index.js'
import { journal, makeJournal, missing } from './journal.js'
import { closeToOthers, grantToService, openedByDefault } from './privileges.js'
import { causeOf } from './sqlstate.js'

/** Resolved through package.json's "imports", so that the built tree finds the same folder as the source. */
const migrationsFolder = dirname(
  dirname(createRequire(import.meta.url).resolve('#migrations/meta/_journal.json'))
)

/** Any constant does, as long as every replica of every version takes the same: "tasksmig" in ASCII. */
const ADVISORY_LOCK = 0x7461736b736d6967n

const INSUFFICIENT_PRIVILEGE = '42501'

/** As in `server_version_num`: 150000 is version 15.0. */
const MIN_VERSION_NUMBER = 150_000

/** How long the start waits for the database before it gives up. */
const START_MS = 10_000

/**
 * Opens the database and brings it up to date: as the role of `migrationUrl` where there is one, which then lets the
 * role of `url` do with tasks what the service does, and nothing else.
 *
 * @throws StartError when it cannot be used
 */
export async function openMigrated(config: DatabaseConfig): Promise<Database> {
  const db = await openDatabase(config)
  const variable = config.kind === 'embedded' ? 'DATA_DIR' : 'DATABASE_URL'
  try {
    await checkDatabase(variable, db)
    if (config.kind === 'postgres' && config.migrationUrl !== undefined) {
      const [service] = await db.withAdminConnection(currentRole)
      await migrateAs(config.migrationUrl, service?.name as string)
    }
    // Also after a migration by another role: this one must find it done.
    await checkDatabase(variable, db, migrate)
    return db
  } catch (error) {
    await db.close()
    throw error
  }
}

/** @param service the role that is given its rights */
async function migrateAs(url: string, service: string): Promise<void> {
  const variable = 'MIGRATION_DATABASE_URL'
  const db = await openDatabase({ kind: 'postgres', url, poolMax: 2 }, variable)
  try {
    await checkDatabase(variable, db, (orm) => migrate(orm, service))
  } finally {
    await db.close()
  }
}

/** @throws StartError that names the variable when the database does not answer, is of no use, or the work fails */
async function checkDatabase(
  variable: string,
  db: Database,
  work?: (orm: Orm) => Promise<void>
): Promise<void> {
  try {
    await db.ping(START_MS)
    await db.withAdminConnection(async (orm) => {
      await checkServer(orm)
      await work?.(orm)
    })
  } catch (error) {
    throw new StartError(`${variable}: the database cannot be used: ${reason(causeOf(error))}`)
  }
}

/** @throws StartError when it is too old, or cannot store any text that a task may have */
async function checkServer(orm: Orm): Promise<void> {
  const [server] = await orm
    .select({
      version: sql<string>`current_setting('server_version')`,
      versionNumber: sql<number>`current_setting('server_version_num')::int`,
      encoding: sql<string>`current_setting('server_encoding')`
    })
    .from(sql`(select 1) as nothing`)
  const { version, versionNumber, encoding } = server as NonNullable<typeof server>
  if (versionNumber < MIN_VERSION_NUMBER) {
    throw new StartError(`its PostgreSQL is ${version}, and must be 15 or newer`)
  }
  if (encoding !== 'UTF8') {
    throw new StartError(
      `its encoding is ${encoding}, and must be UTF8, as made by: create database … template template0 encoding 'UTF8'`
    )
  }
}

/** Asked of the server: the name in the URL may be one that only a pooler in between knows. */
const currentRole = (orm: Orm) =>
  orm.select({ name: sql<string>`current_user` }).from(sql`(select) as nothing`)

function reason(error: unknown): string {
  if (error instanceof StartError) return error.message
  if (error instanceof DatabaseUnavailable) return 'it does not answer'
  const { name, message, code } = error as Error & { code?: string }
  // The driver's message for this says "write CONNECT_TIMEOUT undefined:undefined".
  if (code === 'CONNECT_TIMEOUT') return 'it does not answer'
  if (code === INSUFFICIENT_PRIVILEGE) {
    return `this role may not bring the schema up to date, or not see whether it is; run npm run db:migrate as the owner of the schema (${message})`
  }
  // When a host name has several addresses, Node's error has no message of its own.
  return `${name}: ${message || code}`
}

/**
 * Brings the schema up to date, once, however many processes start at the same time: all that is missing, in one
 * transaction, and closed to whom default privileges would let in. A database that is up to date is only read, so a role
 * that may not change the schema can start the service.
 *
 * Drizzle's own migrator takes no lock, and skips without a word what is older than the newest migration applied.
 *
 * @param service the role that the service runs as, when that is another: it may then use tasks, and see that nothing
 *   is missing
 */
export async function migrate(orm: Orm, service?: string): Promise<void> {
  const migrations = readMigrationFiles({ migrationsFolder })
  const isUpToDate = async () =>
    (await missing(orm, migrations)).length === 0 && (await openedByDefault(orm)).length === 0
  if (service === undefined && (await isUpToDate())) return
  await orm.transaction(async (tx) => {
    // Ends with the transaction, so it works through PgBouncer and nothing can leave it behind.
    await tx.execute(sql`select pg_advisory_xact_lock(${ADVISORY_LOCK})`)
    await makeJournal(tx, migrations)
    for (const migration of await missing(tx, migrations)) {
      for (const statement of migration.sql) await tx.execute(sql.raw(statement))
      await tx.insert(journal).values({ hash: migration.hash })
    }
    if (service !== undefined) await grantToService(tx, service)
    await closeToOthers(tx, service)
  })
}
