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
/** When nothing at all was answered for this time, the connections are given up: nobody may be at their other end. */
const SILENCE_MS = 2_500
/** Connections are given up no more often than this, and what is under way on them has this long to finish. */
const RENEW_MS = 1_000
/** Statements that may be under way at once; more would only grow a queue whose end nobody waits for. */
const MAX_WAITING = 1_000
/** Few, because postgres.js sends many statements on one connection without waiting for each answer. */
const MAX_CONNECTIONS = 4

/**
 * @throws StartError when the URL cannot be read, or the embedded database's folder cannot be used
 */
export async function openDatabase(config: DatabaseConfig): Promise<Database> {
  return config.kind === 'embedded' ? openEmbedded(config.directory) : openPostgres(config.url)
}

function openPostgres(url: string): Database {
  let client: postgres.Sql
  try {
    client = connect(url)
  } catch (error) {
    // Such as a bad escape in the password.
    throw new StartError(`DATABASE_URL cannot be read: ${(error as Error).message}`)
  }
  // Drizzle keeps the client that it is given, so it gets one that stands for the client in use.
  const orm = drizzlePostgres(new Proxy(client, { get: (_, key) => Reflect.get(client, key) }))

  function renew(): void {
    const old = client
    client = connect(url)
    Object.assign(client.options.parsers, old.options.parsers)
    Object.assign(client.options.serializers, old.options.serializers)
    void old.end({ timeout: RENEW_MS / 1000 })
  }

  return limited(orm, () => client.end({ timeout: CLOSE_SECONDS }), renew)
}

function connect(url: string): postgres.Sql {
  return postgres(url, {
    max: MAX_CONNECTIONS,
    connect_timeout: CONNECT_SECONDS,
    fetch_types: false,
    onnotice: () => {},
    // Only parameters that PgBouncer accepts: it refuses, for instance, statement_timeout here.
    connection: { application_name: 'tasks-api', TimeZone: 'UTC', DateStyle: 'ISO' }
  })
}

async function openEmbedded(directory: string): Promise<Database> {
  let release = () => {}
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    release = lockDirectory(directory)
    const client = new ExactPGlite({ dataDir: `${directory}/pgdata` })
    await client.waitReady
    return limited(drizzlePglite(client), async () => {
      await client.close()
      release()
    })
  } catch (error) {
    release()
    if (error instanceof StartError) throw error
    throw new StartError(`DATA_DIR: ${directory} cannot be used: ${(error as Error).message}`)
  }
}

/** @param renew replaces connections that may be of no more use, which the driver would keep */
function limited(orm: Orm, close: () => Promise<void>, renew = () => {}): Database {
  let waiting = 0
  // When the database last said anything, or was first asked after it had nothing to answer.
  let heard = 0
  let renewed = Number.NEGATIVE_INFINITY

  function giveUp(began: number): void {
    if (began < renewed + RENEW_MS) return
    renewed = heard = performance.now()
    renew()
  }

  async function within<T>(milliseconds: number, statement: () => Promise<T>): Promise<T> {
    if (waiting >= MAX_WAITING) throw new Unavailable()
    const began = performance.now()
    if (waiting++ === 0) heard = began
    const answer = statement().finally(() => {
      waiting--
      heard = performance.now()
    })
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Unavailable())
        if (performance.now() - heard >= SILENCE_MS) giveUp(began)
      }, milliseconds)
    })
    try {
      return await Promise.race([answer, deadline])
    } catch (error) {
      const code = codeOf(error)
      // This server is no longer the primary, and the connection would not notice when it is again.
      if (code === READ_ONLY) giveUp(began)
      throw OUTAGE.test(code) ? new Unavailable({ cause: causeOf(error) }) : error
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

const READ_ONLY = '25006'

function codeOf(error: unknown): string {
  const { code } = Object(causeOf(error))
  return typeof code === 'string' ? code : ''
}
