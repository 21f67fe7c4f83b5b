import { sql } from 'drizzle-orm'
import {
  boolean,
  check,
  integer,
  pgTable,
  primaryKey,
  text,
  timestamp,
  uniqueIndex,
  uuid
} from 'drizzle-orm/pg-core'

const utcTimestamp = (name: string) => timestamp(name, { withTimezone: true, precision: 3, mode: 'string' })

/**
 * One name for a thing in the column, the row and the wire, so nothing has to map between them.
 *
 * The user comes first in the key: no statement finds a task without naming its owner, and a user's list,
 * newest first, is one backward scan of this one index (ids are UUIDv7, so they sort by age).
 */
export const tasks = pgTable(
  'tasks',
  {
    user_id: text().notNull(),
    id: uuid().notNull(),
    title: text().notNull(),
    description: text(),
    completed: boolean().notNull(),
    completed_at: utcTimestamp('completed_at'),
    created_at: utcTimestamp('created_at').notNull().defaultNow(),
    updated_at: utcTimestamp('updated_at').notNull().defaultNow(),
    /** Grows by one with every change: the task's entity tag. */
    version: integer().notNull().default(1),
    /** The `Idempotency-Key` that the task was created with, and a digest of what was sent with it. */
    idempotency_key: text(),
    idempotency_digest: text()
  },
  (table) => [
    primaryKey({ columns: [table.user_id, table.id] }),
    // Partial: a task that was created without a key costs this index nothing.
    uniqueIndex('tasks_idempotency_key')
      .on(table.user_id, table.idempotency_key)
      .where(sql`${table.idempotency_key} is not null`),
    // The API validates all of this before; these hold for whoever else writes to the table.
    check('tasks_user_id_length', sql`char_length(${table.user_id}) between 1 and 255`),
    check('tasks_title_length', sql`char_length(${table.title}) between 1 and 200`),
    check('tasks_description_length', sql`char_length(${table.description}) <= 10000`),
    check('tasks_completed_at', sql`${table.completed} = (${table.completed_at} is not null)`)
  ]
)

type Row = typeof tasks.$inferSelect

/** A task as its user sees it. */
export type Task = Omit<Row, 'version' | 'idempotency_key' | 'idempotency_digest'>
/** With the version that its entity tag is made of. */
export type VersionedTask = Task & Pick<Row, 'version'>
