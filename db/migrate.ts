import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { sql } from 'drizzle-orm'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import type { Orm } from './driver.js'
import { DatabaseUnavailable, StartError } from './errors.js'
import { type Database, type DatabaseConfig, openDatabase } from './index.js'
import { journal, makeJournal, missing } from './journal.js'
import { checkAccess, closeToOthers, grantToService, openedByDefault } from './privileges.js'
import { causeOf, INSUFFICIENT_PRIVILEGE, NO_SCHEMA, READ_ONLY } from './sqlstate.js'

/** Resolved through package.json's "imports", so that the built tree finds the same folder as the source. */
const migrationsFolder = dirname(
  dirname(createRequire(import.meta.url).resolve('#migrations/meta/_journal.json'))
)

/** Every replica of every version must use the same number: "tasksmig" in ASCII. */
const ADVISORY_LOCK = 0x7461736b736d6967n

/** Compared with `server_version_num`: 150000 is version 15.0. */
const MIN_VERSION_NUMBER = 150_000

/** Timeout of the database's first answer, in milliseconds. */
export const START_MS = 10_000

/**
 * Opens the database and runs the migrations. If `migrationUrl` is set, its role runs them, and grants the role of `url`
 * only the rights that the service needs.
 *
 * @throws StartError if the database cannot be used
 */
export async function openMigrated(config: DatabaseConfig): Promise<Database> {
  const db = await openDatabase(config)
  const variable = config.kind === 'embedded' ? 'DATA_DIR' : 'DATABASE_URL'
  try {
    let migrated: Table | undefined
    if (config.kind === 'postgres' && config.migrationUrl !== undefined) {
      const [service] = await useDatabase(variable, db, currentRole)
      migrated = await migrateAs(config.migrationUrl, service?.name as string)
    }
    await useDatabase(variable, db, async (orm) => {
      if (migrated) await expectTable(orm, migrated)
      // Without `migrationUrl` this migrates. Otherwise it only checks that the service's role sees the new schema.
      await migrate(orm)
      await checkAccess(orm)
    })
    return db
  } catch (error) {
    await db.close()
    throw error
  }
}

/**
 * @param service the role that receives rights
 * @returns the table of tasks
 */
async function migrateAs(url: string, service: string): Promise<Table> {
  const variable = 'MIGRATION_DATABASE_URL'
  const db = await openDatabase({ kind: 'postgres', url, poolMax: 2 }, variable)
  try {
    return await useDatabase(variable, db, async (orm) => {
      await migrate(orm, service)
      return tableOf(orm)
    })
  } finally {
    await db.close()
  }
}

/** @throws StartError that names the variable if the database does not answer or cannot be used, or the work fails */
async function useDatabase<T>(variable: string, db: Database, work: (orm: Orm) => Promise<T>): Promise<T> {
  try {
    await db.ping(START_MS)
    return await db.withAdminConnection(async (orm) => {
      await checkServer(orm)
      return work(orm)
    })
  } catch (error) {
    throw new StartError(`${variable}: the database cannot be used: ${reason(causeOf(error))}`)
  }
}

/** @throws StartError if the server is too old, or its encoding cannot store every text */
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

/** Only the server knows its role: the name in the URL may be a pooler's. */
const currentRole = (orm: Orm) =>
  orm.select({ name: sql<string>`current_user` }).from(sql`(select) as nothing`)

type Table = Awaited<ReturnType<typeof tableOf>>

async function tableOf(orm: Orm) {
  const [table] = await orm
    .select({
      oid: sql<string>`to_regclass('tasks')::oid::text`,
      schemas: sql<string>`array_to_string(current_schemas(false), ', ')`
    })
    .from(sql`(select) as nothing`)
  return table as NonNullable<typeof table>
}

/** @throws StartError if the name of the table stands for another one */
async function expectTable(orm: Orm, expected: Table): Promise<void> {
  const { oid, schemas } = await tableOf(orm)
  if (oid === expected.oid) return
  throw new StartError(
    `its role does not find the tasks of MIGRATION_DATABASE_URL: the schemas of search_path are ${schemas || 'none'}, and ${expected.schemas} there`
  )
}

function reason(error: unknown): string {
  if (error instanceof StartError) return error.message
  if (error instanceof DatabaseUnavailable) return 'it does not answer'
  const { name, message, code } = error as Error & { code?: string }
  // The driver's own message is "write CONNECT_TIMEOUT undefined:undefined".
  if (code === 'CONNECT_TIMEOUT') return 'it does not answer'
  if (code === INSUFFICIENT_PRIVILEGE) {
    return `this role may not migrate the schema, or not read its version; run npm run db:migrate as the owner of the schema (${message})`
  }
  if (code === READ_ONLY) return `it accepts no writes, so its schema cannot be migrated (${message})`
  if (code === NO_SCHEMA) return `this role has no schema in its search_path that it may use (${message})`
  // Node's error has no message if a host name has several addresses.
  return `${name}: ${message || code}`
}

/**
 * Runs the missing migrations in one transaction, and revokes rights that default privileges gave to other roles. Several
 * processes may do this at the same time. A schema that is up to date is only read, so the service can start with a role
 * that may not change it.
 *
 * Drizzle's own migrator takes no lock. It also skips a migration that is older than the newest applied one, without an
 * error (drizzle-team/drizzle-orm#874).
 *
 * @param service the service's role, if another role migrates. It receives rights on tasks and on the journal
 */
export async function migrate(orm: Orm, service?: string): Promise<void> {
  const migrations = readMigrationFiles({ migrationsFolder })
  const isUpToDate = async () =>
    (await missing(orm, migrations)).length === 0 && (await openedByDefault(orm)).length === 0
  if (service === undefined && (await isUpToDate())) return
  const run = async (tx: Orm) => {
    // This lock ends with the transaction, so it works through PgBouncer and cannot be left behind.
    await tx.execute(sql`select pg_advisory_xact_lock(${ADVISORY_LOCK})`)
    await makeJournal(tx, migrations)
    for (const migration of await missing(tx, migrations)) {
      for (const statement of migration.sql) await tx.execute(sql.raw(statement))
      await tx.insert(journal).values({ hash: migration.hash })
    }
    if (service !== undefined) await grantToService(tx, service)
    await closeToOthers(tx, service)
  }
  // At a stricter level, the lock would take the snapshot before it waits. Then the work of the process before is not seen.
  await orm.transaction(run, { isolationLevel: 'read committed' })
}
