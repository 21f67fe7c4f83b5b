import { mkdirSync } from 'node:fs'
import { types } from '@electric-sql/pglite'
import { is, Param, Placeholder } from 'drizzle-orm'
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import { drizzle as drizzlePglite } from 'drizzle-orm/pglite'
import { drizzle as drizzlePostgres } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import type { DatabaseConfig } from '../src/config.js'
import { StartError, Unavailable } from '../src/errors.js'
import { lockDirectory } from './directory-lock.js'
import { ExactPGlite } from './exact-pglite.js'
import { toInstant } from './instant.js'

export type Orm = PgDatabase<PgQueryResultHKT>

/** A statement built with drizzle, whose rows are `Row`. */
export interface Statement<Row> extends PromiseLike<Row[]> {
  toSQL(): { sql: string; params: unknown[] }
}

/** What both databases have in common; nothing above this file knows which one it is. */
export interface Database {
  /**
   * Turns a statement into a function of its placeholders' values. Its text is made once, and PostgreSQL plans it once
   * on each connection. Every call runs under the limits that the drivers lack: a deadline, and a bound on what waits.
   *
   * Rows come as the driver makes them, each column under its own name, and instants as they go over the wire.
   *
   * @throws Unavailable (503) from the function, when the database cannot be reached, does not answer in time, or has
   *   too much to do
   */
  prepare<Row>(statement: Statement<Row>): (values: Record<string, unknown>) => Promise<Row[]>
  /** Runs work that is no request's, such as migrations, on a connection of its own and without a deadline. */
  administer<T>(work: (orm: Orm) => Promise<T>): Promise<T>
  /** @throws Unavailable when the database does not answer within `milliseconds` */
  ping(milliseconds: number): Promise<void>
  /** Ends every connection; statements that are under way have `CLOSE_SECONDS` to finish. */
  close(): Promise<void>
}

/** What a driver has to do for that. */
interface Driver extends Pick<Database, 'administer' | 'close'> {
  query(text: string, parameters: unknown[]): PromiseLike<unknown[]>
  /** Replaces connections that may be of no more use. */
  renew(): void
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
    client = connect(url, MAX_CONNECTIONS)
  } catch (error) {
    // Such as a bad escape in the password.
    throw new StartError(`DATABASE_URL cannot be read: ${(error as Error).message}`)
  }
  return limited({
    query: (text, parameters) => client.unsafe(text, parameters as string[], { prepare: true }),
    async administer(work) {
      // Not the client of the requests: drizzle replaces the parsers of the one it is given.
      const own = connect(url, 1)
      try {
        return await work(drizzlePostgres(own))
      } finally {
        await own.end({ timeout: CLOSE_SECONDS })
      }
    },
    renew() {
      void client.end({ timeout: RENEW_MS / 1000 })
      client = connect(url, MAX_CONNECTIONS)
    },
    close: () => client.end({ timeout: CLOSE_SECONDS })
  })
}

/** @param max connections */
function connect(url: string, max: number): postgres.Sql {
  return postgres(url, {
    max,
    connect_timeout: CONNECT_SECONDS,
    fetch_types: false,
    onnotice: () => {},
    // Only parameters that PgBouncer accepts: it refuses, for instance, statement_timeout here.
    connection: { application_name: 'tasks-api', TimeZone: 'UTC', DateStyle: 'ISO' },
    types: {
      instant: { to: types.TIMESTAMPTZ, from: [types.TIMESTAMPTZ], parse: toInstant, serialize: String }
    }
  })
}

async function openEmbedded(directory: string): Promise<Database> {
  let release = () => {}
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    release = lockDirectory(directory)
    const client = new ExactPGlite({
      dataDir: `${directory}/pgdata`,
      parsers: { [types.TIMESTAMPTZ]: toInstant }
    })
    await client.waitReady
    await client.query("set timezone = 'UTC'")
    return limited({
      query: async (text, parameters) => (await client.query(text, parameters)).rows,
      administer: (work) => work(drizzlePglite(client)),
      renew: () => {},
      async close() {
        await client.close()
        release()
      }
    })
  } catch (error) {
    release()
    if (error instanceof StartError) throw error
    throw new StartError(`DATA_DIR: ${directory} cannot be used: ${(error as Error).message}`)
  }
}

function limited({ query, administer, renew, close }: Driver): Database {
  let waiting = 0
  // When the database last said anything, or was first asked after it had nothing to answer.
  let heard = 0
  let renewed = Number.NEGATIVE_INFINITY

  function giveUp(began: number): void {
    if (began < renewed + RENEW_MS) return
    renewed = heard = performance.now()
    renew()
  }

  function within<Row>(milliseconds: number, text: string, parameters: unknown[]): Promise<Row[]> {
    if (waiting >= MAX_WAITING) return Promise.reject(new Unavailable())
    const began = performance.now()
    if (waiting++ === 0) heard = began
    // One promise and one timer: this is on the path of every request.
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Unavailable())
        if (performance.now() - heard >= SILENCE_MS) giveUp(began)
      }, milliseconds)
      const answered = () => {
        clearTimeout(timer)
        waiting--
        heard = performance.now()
      }
      query(text, parameters).then(
        (rows) => {
          answered()
          resolve(rows as Row[])
        },
        (error) => {
          answered()
          const code = codeOf(error)
          // This server is no longer the primary, and the connection would not notice when it is again.
          if (code === READ_ONLY) giveUp(began)
          reject(OUTAGE.test(code) ? new Unavailable({ cause: error }) : error)
        }
      )
    })
  }

  return {
    prepare<Row>(statement: Statement<Row>) {
      const { sql, params } = statement.toSQL()
      const names = params.map(placeholderOf)
      return (values: Record<string, unknown>) =>
        within<Row>(
          STATEMENT_MS,
          sql,
          names.map((name) => values[name])
        )
    },
    administer,
    ping: async (milliseconds) => {
      await within(milliseconds, 'select 1', [])
    },
    close
  }
}

/** The name of the placeholder that a parameter is. What a statement compares or sets is never written into it. */
function placeholderOf(parameter: unknown): string {
  const placeholder = is(parameter, Param) ? parameter.value : parameter
  if (!is(placeholder, Placeholder)) throw new TypeError('a statement must take its values from placeholders')
  return placeholder.name
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
