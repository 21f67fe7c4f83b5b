import { is, Param, Placeholder } from 'drizzle-orm'
import type { LockTarget, Orm, Statement } from './driver.js'
import { DatabaseUnavailable } from './errors.js'
import { type DatabaseFigures, type DatabaseObservations, observations } from './observations.js'
import { openPostgres } from './postgres/index.js'
import { Pace } from './postgres/pacing.js'
import { STATEMENT_MS, TICK_MS } from './postgres/session.js'

export type DatabaseConfig =
  | {
      kind: 'embedded'
      directory: string
      /** Refuse a folder that holds no database, instead of making one. */
      mustExist?: boolean
    }
  | {
      kind: 'postgres'
      url: string
      /** The most connections that requests may use. */
      poolMax?: number
      /** The same database by a role that may change its schema; unless set, the role of `url` does that too. */
      migrationUrl?: string
    }

/** A statement built with drizzle, whose rows are `Row`. */
export interface BuiltStatement<Row> extends PromiseLike<Row[]> {
  toSQL(): { sql: string; params: unknown[] }
}

/** The values of a statement's placeholders, by their names. */
export type Values = Record<string, unknown>

/**
 * Both databases behind one interface; code above it does not know which one is used.
 *
 * The `prepare` functions turn a statement into a function of its placeholders' values. Its text is made once, and
 * PostgreSQL plans it once on each connection. Every call runs under the limits that the drivers lack: a deadline of
 * 2 seconds, and a bound on what waits. Rows come as the driver makes them, each column under its own name, and
 * timestamps as they go over the wire.
 *
 * The functions throw DatabaseUnavailable when the database cannot be reached, does not answer in time, or has too much
 * to do.
 */
export interface Database {
  prepareRead<Row>(statement: BuiltStatement<Row>): (values: Values) => Promise<Row[]>
  /** @param lockTarget the row that a call locks, so that writes which share a transaction lock in one order */
  prepareWrite<Row>(
    statement: BuiltStatement<Row>,
    lockTarget: (values: Values) => LockTarget
  ): (values: Values) => Promise<Row[]>
  /**
   * For a read whose rows may be too many for the memory: they come in batches, all from one snapshot, and the database
   * makes the next batch while one is used. Ending the iteration ends the statement.
   */
  prepareStream<Row>(statement: BuiltStatement<Row>): (values: Values) => AsyncIterable<Row[]>
  /** Emits what happens to statements and connections; the embedded database has nothing to tell. */
  readonly observed: DatabaseObservations
  figures(): DatabaseFigures
  /** Runs work outside of requests, such as migrations, on a connection of its own and without a deadline. */
  withAdminConnection<T>(work: (orm: Orm) => Promise<T>): Promise<T>
  /** @throws DatabaseUnavailable when the database does not answer within `milliseconds` */
  ping(milliseconds: number): Promise<void>
  /** Ends every connection; statements under way have `CLOSE_MS` to finish. */
  close(): Promise<void>
}

/** Statements that may be under way or waiting at once. More would only grow a queue that is answered too late. */
const MAX_PENDING = 1_000
const CLOSE_MS = 5_000
/** Connections that requests may use unless the configuration says otherwise. */
const DEFAULT_POOL_MAX = 10

/**
 * @param variable the setting that holds the URL
 * @throws StartError when the URL cannot be used, or the embedded database's folder cannot be used
 */
export async function openDatabase(config: DatabaseConfig, variable = 'DATABASE_URL'): Promise<Database> {
  const observed = observations()
  const driver =
    config.kind === 'embedded'
      ? // A service on PostgreSQL never loads PGlite.
        await (await import('./embedded/index.js')).openEmbedded(config.directory, config.mustExist)
      : openPostgres(config.url, variable, config.poolMax ?? DEFAULT_POOL_MAX, observed)
  const clock = setInterval(() => driver.tick(performance.now()), TICK_MS)

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
        const now = performance.now()
        const rows = await driver.write(bind(values), lockTarget(values), now, now + STATEMENT_MS)
        return rows as Row[]
      }
    },
    prepareStream<Row>(statement: BuiltStatement<Row>) {
      const bind = compile(statement)
      return (values: Values) => {
        if (isFull()) throw new DatabaseUnavailable('overload')
        const { text, parameters } = bind(values)
        return driver.stream(text, parameters) as AsyncIterable<Row[]>
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

/** A function that puts values into the places of a statement's placeholders. */
function compile(statement: BuiltStatement<unknown>): (values: Values) => Statement {
  const { sql: text, params } = statement.toSQL()
  const names = params.map(placeholderOf)
  return (values) => ({ text, parameters: names.map((name) => values[name]) })
}

/** The name of the placeholder that a parameter is. Values that a statement compares or sets are never part of its text. */
function placeholderOf(parameter: unknown): string {
  const placeholder = is(parameter, Param) ? parameter.value : parameter
  if (!is(placeholder, Placeholder)) throw new TypeError('a statement must take its values from placeholders')
  return placeholder.name
}
