import { mkdirSync } from 'node:fs'
import { sql } from 'drizzle-orm'
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import { drizzle as drizzlePglite } from 'drizzle-orm/pglite'
import { drizzle as drizzlePostgres } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import type { DatabaseConfig } from '../src/config.js'
import { StartError, Unavailable } from '../src/errors.js'
import { lockDirectory } from './directory-lock.js'
import { ExactPGlite } from './exact-pglite.js'

export type Orm = PgDatabase<PgQueryResultHKT>

/** What both databases have in common; nothing above this file knows which one it is. */
export interface Database {
  orm: Orm
  /**
   * Runs one statement under the limits that the drivers lack: a deadline, and a bound on what waits.
   *
   * @throws Unavailable (503) when the database cannot be reached, does not answer in time, or has too much to do
   */
  run<T>(statement: () => Promise<T>): Promise<T>
  /** @throws Unavailable when the database does not answer within `milliseconds` */
  ping(milliseconds: number): Promise<void>
  /** Ends every connection; statements that are under way have `CLOSE_SECONDS` to finish. */
  close(): Promise<void>
}

/** How long a request waits for its statement. */
const STATEMENT_MS = 3_000
const CLOSE_SECONDS = 5
const CONNECT_SECONDS = 3
/** Statements that may be under way at once; more would only grow a queue whose end nobody waits for. */
const MAX_WAITING = 1_000
/** Few, because postgres.js sends many statements on one connection without waiting for each answer. */
const MAX_CONNECTIONS = 4

/**
 * @throws StartError when the embedded database's folder cannot be used
 */
export async function openDatabase(config: DatabaseConfig): Promise<Database> {
  return config.kind === 'embedded' ? openEmbedded(config.directory) : openPostgres(config.url)
}

function openPostgres(url: string): Database {
  // Drizzle replaces this client's date parsers, so it is shared with nobody.
  const client = postgres(url, {
    max: MAX_CONNECTIONS,
    connect_timeout: CONNECT_SECONDS,
    fetch_types: false,
    onnotice: () => {},
    // Only parameters that PgBouncer accepts: it refuses, for instance, statement_timeout here.
    connection: { application_name: 'tasks-api', TimeZone: 'UTC', DateStyle: 'ISO' }
  })
  return limited(drizzlePostgres(client), () => client.end({ timeout: CLOSE_SECONDS }))
}

async function openEmbedded(directory: string): Promise<Database> {
  let release: () => void
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    release = lockDirectory(directory)
  } catch (error) {
    if (error instanceof StartError) throw error
    throw new StartError(`DATA_DIR: ${directory} cannot be used: ${(error as Error).message}`)
  }
  const client = new ExactPGlite({ dataDir: `${directory}/pgdata` })
  await client.waitReady
  return limited(drizzlePglite(client), async () => {
    await client.close()
    release()
  })
}

function limited(orm: Orm, close: () => Promise<void>): Database {
  let waiting = 0

  async function within<T>(milliseconds: number, statement: () => Promise<T>): Promise<T> {
    if (waiting >= MAX_WAITING) throw new Unavailable()
    waiting++
    const answer = statement().finally(() => waiting--)
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Unavailable()), milliseconds)
    })
    try {
      return await Promise.race([answer, deadline])
    } catch (error) {
      throw isOutage(error) ? new Unavailable({ cause: causeOf(error) }) : error
    } finally {
      clearTimeout(timer)
      // A statement that fails after its deadline has nobody left to tell.
      answer.catch(() => {})
    }
  }

  return {
    orm,
    run: (statement) => within(STATEMENT_MS, statement),
    ping: async (milliseconds) => {
      await within(milliseconds, () => orm.execute(sql`select 1`))
    },
    close
  }
}

/** What the database or its driver said; drizzle wraps it in an error whose message holds the statement and its values. */
export function causeOf(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? causeOf(error.cause) : error
}

/**
 * Codes that say "not now" rather than "wrong": the driver's own, the system's, and PostgreSQL's classes 08
 * (connection), 53 (out of connections, memory or disk), 57P (shutting down), with 25006 (read-only: this server is
 * no longer the primary) and 57014 (cancelled).
 */
const OUTAGE =
  /^(08...|53...|57P..|57014|25006|CONNECT\w*|ECONN\w*|ENOTFOUND|EAI_AGAIN|EHOST\w+|ENET\w+|EPIPE|ETIMEDOUT|ENOENT)$/

function isOutage(error: unknown): boolean {
  const cause = causeOf(error) as { code?: unknown }
  return typeof cause?.code === 'string' && OUTAGE.test(cause.code)
}
