import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import type { DatabaseFigures } from './observations.js'
import type { Pace } from './postgres/durations.js'

export type Orm = PgDatabase<PgQueryResultHKT>

/** One statement with its values. */
export interface Statement {
  text: string
  parameters: unknown[]
}

/** `command` is the command tag of PostgreSQL's answer. */
export type Rows = unknown[] & { command?: string }

/** The row that a write locks. */
export interface LockTarget {
  user: string
  /** The task's id, in lower case; undefined when the write may lock any of the user's tasks. */
  task: string | undefined
}

/** The part that differs between the two databases. Times are those of `performance.now()`. */
export interface Driver {
  /** @param pace recent durations of the statement */
  read(statement: Statement, pace: Pace, now: number, until: number): Promise<Rows>
  write(statement: Statement, target: LockTarget, until: number): Promise<Rows>
  /** The number of statements without an answer. */
  pending(): number
  figures(): DatabaseFigures
  /**
   * Checks the deadlines. It must be called every `TICK_MS`.
   *
   * @param now what had its deadline before this time is late
   */
  tick(now: number): void
  /**
   * Returns the rows in batches, all from one snapshot. Ending the iteration ends the statement.
   *
   * @param user whose rows they are: one user cannot take all connections
   */
  stream(text: string, parameters: unknown[], user: string): AsyncIterable<unknown[]>
  /** Runs work outside of requests, such as migrations, on a connection of its own and without a deadline. */
  withAdminConnection<T>(work: (orm: Orm) => Promise<T>): Promise<T>
  /** @param milliseconds time that running statements have to finish */
  close(milliseconds: number): Promise<void>
}
