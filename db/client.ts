import { is, Param, Placeholder } from 'drizzle-orm'
import type { DatabaseConfig } from '../src/config.js'
import { Unavailable } from '../src/errors.js'
import type { Kind, Orm, Target } from './driver.js'
import { openEmbedded } from './embedded/index.js'
import { type Rows, STATEMENT_MS, TICK_MS } from './lane.js'
import { openPostgres } from './postgres.js'

/** A statement built with drizzle, whose rows are `Row`. */
export interface Statement<Row> extends PromiseLike<Row[]> {
  toSQL(): { sql: string; params: unknown[] }
}

/** The values of a statement's placeholders, by their names. */
export type Values = Record<string, unknown>

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
  prepare<Row>(kind: Kind, statement: Statement<Row>): (values: Values) => Promise<Row[]>
  /**
   * As `prepare`, for a read whose rows may be too many for the memory: they come in batches, all from one snapshot,
   * and the database makes the next one when it is asked for. Ending the iteration ends the statement.
   */
  prepareStream<Row>(statement: Statement<Row>): (values: Values) => AsyncIterable<Row[]>
  /** Runs work that is no request's, such as migrations, on a connection of its own and without a deadline. */
  administer<T>(work: (orm: Orm) => Promise<T>): Promise<T>
  /** @throws Unavailable when the database does not answer within `milliseconds` */
  ping(milliseconds: number): Promise<void>
  /** Ends every connection; statements that are under way have `CLOSE_MS` to finish. */
  close(): Promise<void>
}

/** Statements that may be under way at once; more would only grow a queue whose end nobody waits for. */
const MAX_WAITING = 1_000
const CLOSE_MS = 5_000

/**
 * @param variable the setting that holds the URL
 * @throws StartError when the URL cannot be used, or the embedded database's folder cannot be used
 */
export async function openDatabase(config: DatabaseConfig, variable = 'DATABASE_URL'): Promise<Database> {
  const driver =
    config.kind === 'embedded' ? await openEmbedded(config.directory) : openPostgres(config.url, variable)
  const clock = setInterval(() => driver.tick(performance.now()), TICK_MS)

  /** Starts a statement unless too many are under way. */
  function start(run: (now: number) => Promise<Rows>): Promise<Rows> {
    return driver.waiting() >= MAX_WAITING ? Promise.reject(new Unavailable()) : run(performance.now())
  }

  return {
    prepare<Row>(kind: Kind, statement: Statement<Row>) {
      const { text, parametersOf } = compile(statement)
      const run =
        kind === 'read'
          ? (values: Values, now: number) =>
              driver.read({ text, parameters: parametersOf(values) }, now, STATEMENT_MS)
          : (values: Values, now: number) =>
              driver.write({ text, parameters: parametersOf(values) }, targetOf(values), now, STATEMENT_MS)
      return (values: Values) => start((now) => run(values, now)) as Promise<Row[]>
    },
    prepareStream<Row>(statement: Statement<Row>) {
      const { text, parametersOf } = compile(statement)
      return (values: Values) => driver.stream(text, parametersOf(values)) as AsyncIterable<Row[]>
    },
    administer: driver.administer,
    async ping(milliseconds) {
      await start((now) => driver.read({ text: 'select 1', parameters: [] }, now, milliseconds))
    },
    async close() {
      await driver.close(CLOSE_MS)
      clearInterval(clock)
    }
  }
}

const targetOf = ({ user_id, id, key }: Values): Target => ({
  user: String(user_id),
  // Upper and lower case are the same id. And a create that is repeated with its key locks the task that the first one
  // made.
  id: key === undefined ? String(id).toLowerCase() : undefined
})

function compile(statement: Statement<unknown>) {
  const { sql, params } = statement.toSQL()
  const names = params.map(placeholderOf)
  return { text: sql, parametersOf: (values: Values) => names.map((name) => values[name]) }
}

/** The name of the placeholder that a parameter is. What a statement compares or sets is never written into it. */
function placeholderOf(parameter: unknown): string {
  const placeholder = is(parameter, Param) ? parameter.value : parameter
  if (!is(placeholder, Placeholder)) throw new TypeError('a statement must take its values from placeholders')
  return placeholder.name
}
