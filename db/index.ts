import { is, Param, Placeholder } from 'drizzle-orm'
import type { Driver, LockTarget, Statement } from './driver.js'
import { DatabaseUnavailable } from './errors.js'
import { type DatabaseObservations, observations } from './observations.js'
import { STATEMENT_MS, TICK_MS } from './postgres/deadline-session.js'
import { Pace } from './postgres/durations.js'
import { openPostgres } from './postgres/index.js'

export type DatabaseConfig =
  | {
      kind: 'embedded'
      directory: string
      /** True refuses a folder without a database. Otherwise a database is created. */
      mustExist?: boolean
    }
  | {
      kind: 'postgres'
      url: string
      /** Maximum number of connections for requests. */
      poolMax?: number
      /** False sends each write in a transaction of its own. */
      sharedTransactions?: boolean
      /** The same database with a role that may change its schema. If unset, the role of `url` is used. */
      migrationUrl?: string
    }

/** A statement built with drizzle that returns rows of type `Row`. */
export interface BuiltStatement<Row> extends PromiseLike<Row[]> {
  toSQL(): { sql: string; params: unknown[] }
}

/** The values of a statement's placeholders, by name. */
export type Values = Record<string, unknown>

/**
 * One interface for PostgreSQL and the embedded database.
 *
 * Each `prepare` function turns a statement into a function of its placeholders' values. Its text is built once, and
 * PostgreSQL parses it once on each direct connection. Every call has limits that the drivers lack: a deadline of
 * 2 seconds, and a maximum length of the queue. Rows have the columns' names, and timestamps in the API's format.
 *
 * The functions throw DatabaseUnavailable if the database cannot be reached, does not answer in time, or is overloaded.
 */
export interface Database extends Pick<Driver, 'figures' | 'withAdminConnection'> {
  prepareRead<Row>(statement: BuiltStatement<Row>): (values: Values) => Promise<Row[]>
  /** @param lockTarget returns the row that a call locks: writes that share a transaction lock their rows in one order */
  prepareWrite<Row>(
    statement: BuiltStatement<Row>,
    lockTarget: (values: Values) => LockTarget
  ): (values: Values) => Promise<Row[]>
  /**
   * Reads more rows than fit into memory, in batches, all from one snapshot. The next batch is fetched while the current
   * one is used. Ending the iteration ends the statement.
   *
   * @param userOf returns whose rows a call reads: one user cannot take all connections
   */
  prepareStream<Row>(
    statement: BuiltStatement<Row>,
    userOf: (values: Values) => string
  ): (values: Values) => AsyncIterable<Row[]>
  /** Events of statements and connections. The embedded database emits none. */
  readonly observed: DatabaseObservations
  /** @throws DatabaseUnavailable if the database does not answer within `milliseconds` */
  ping(milliseconds: number): Promise<void>
  /** Ends every connection. Running statements have `CLOSE_MS` to finish. */
  close(): Promise<void>
}

/** Maximum number of statements that run or wait. A longer queue would only be answered too late. */
const MAX_PENDING = 1_000
const CLOSE_MS = 5_000
const DEFAULT_POOL_MAX = 10

/**
 * @param variable name of the variable that has the URL, for errors
 * @throws StartError if the URL or the embedded database's folder cannot be used
 */
export async function openDatabase(config: DatabaseConfig, variable = 'DATABASE_URL'): Promise<Database> {
  const observed = observations()
  const driver =
    config.kind === 'embedded'
      ? // PGlite is large, and a service on PostgreSQL does not load it.
        await (await import('./embedded/index.js')).openEmbedded(config.directory, config.mustExist)
      : openPostgres(config, variable, config.poolMax ?? DEFAULT_POOL_MAX, observed)
  let tickedAt = performance.now()
  const clock = setInterval(() => {
    const now = performance.now()
    // If this process was paused, answers may be there but not read yet. So nothing has become late since the last check.
    driver.tick(now > tickedAt + 2 * TICK_MS ? tickedAt : now)
    tickedAt = now
  }, TICK_MS)

  const isFull = () => driver.pending() >= MAX_PENDING

  async function read(statement: Statement, pace: Pace, milliseconds: number): Promise<unknown[]> {
    if (isFull()) throw new DatabaseUnavailable('overload')
    const now = performance.now()
    return driver.read(statement, pace, now, now + milliseconds)
  }

  return {
    prepareRead<Row>(statement: BuiltStatement<Row>) {
      const bind = compile(statement)
      const pace = new Pace()
      return (values: Values) => read(bind(values), pace, STATEMENT_MS) as Promise<Row[]>
    },
    prepareWrite<Row>(statement: BuiltStatement<Row>, lockTarget: (values: Values) => LockTarget) {
      const bind = compile(statement)
      return async (values: Values) => {
        if (isFull()) throw new DatabaseUnavailable('overload')
        const until = performance.now() + STATEMENT_MS
        const rows = await driver.write(bind(values), lockTarget(values), until)
        return rows as Row[]
      }
    },
    prepareStream<Row>(statement: BuiltStatement<Row>, userOf: (values: Values) => string) {
      const bind = compile(statement)
      return (values: Values) => {
        if (isFull()) throw new DatabaseUnavailable('overload')
        const { text, parameters } = bind(values)
        return driver.stream(text, parameters, userOf(values)) as AsyncIterable<Row[]>
      }
    },
    observed,
    figures: driver.figures,
    withAdminConnection: driver.withAdminConnection,
    async ping(milliseconds) {
      await read(PING, PING_PACE, milliseconds)
    },
    async close() {
      await driver.close(CLOSE_MS)
      clearInterval(clock)
    }
  }
}

const PING: Statement = { text: 'select 1', parameters: [] }
const PING_PACE = new Pace()

/** Returns a function that replaces a statement's placeholders by values. */
function compile(statement: BuiltStatement<unknown>): (values: Values) => Statement {
  const { sql: text, params } = statement.toSQL()
  const names = params.map(placeholderOf)
  return (values) => ({ text, parameters: names.map((name) => values[name]) })
}

/** @throws TypeError if a parameter is a value: prepared statements take all values from placeholders */
function placeholderOf(parameter: unknown): string {
  const placeholder = is(parameter, Param) ? parameter.value : parameter
  if (!is(placeholder, Placeholder)) throw new TypeError('a statement must take its values from placeholders')
  return placeholder.name
}
