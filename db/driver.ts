import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import type { Rows, Statement } from './lane.js'

export type Orm = PgDatabase<PgQueryResultHKT>

/** What a statement may do. */
export type Kind = 'read' | 'write'

/** What a write locks. */
export interface Target {
  user: string
  /** The task; undefined when it may be any of the user's. */
  id: string | undefined
}

/** What each of the two databases brings. */
export interface Driver {
  /** @param milliseconds the deadline */
  read(statement: Statement, now: number, milliseconds: number): Promise<Rows>
  /** @param milliseconds the deadline */
  write(statement: Statement, target: Target, now: number, milliseconds: number): Promise<Rows>
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
