import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import type { Rows, Statement } from './lane.js'

export type Orm = PgDatabase<PgQueryResultHKT>

/** What a statement may do. */
export type Kind = 'read' | 'write'

/** What each of the two databases brings. */
export interface Driver {
  /**
   * @param order texts in whose order writes that share a transaction take their locks; equal where they lock the same row
   * @param milliseconds the deadline
   */
  run(kind: Kind, statement: Statement, order: string, now: number, milliseconds: number): Promise<Rows>
  /** How many statements were not answered. */
  waiting(): number
  /** To be called every `TICK_MS`, for what is late. */
  tick(now: number): void
  /** The rows in batches, all from one snapshot. Ending the iteration ends the statement. */
  stream(text: string, parameters: unknown[]): AsyncIterable<unknown[]>
  /** Runs work that is no request's, on a connection of its own and without a deadline. */
  administer<T>(work: (orm: Orm) => Promise<T>): Promise<T>
  /** @param milliseconds how long what is under way has to finish */
  close(milliseconds: number): Promise<void>
}
