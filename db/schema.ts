import { sql } from 'drizzle-orm'
import { boolean, check, pgTable, primaryKey, text, timestamp, uuid } from 'drizzle-orm/pg-core'

const instant = (name: string) => timestamp(name, { withTimezone: true, precision: 3, mode: 'date' })

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
    completed_at: instant('completed_at'),
    created_at: instant('created_at').notNull().defaultNow(),
    updated_at: instant('updated_at').notNull().defaultNow()
  },
  (table) => [
    primaryKey({ columns: [table.user_id, table.id] }),
    // The API validates all of this before; these hold for whoever else writes to the table.
    check('tasks_user_id_length', sql`char_length(${table.user_id}) between 1 and 255`),
    check('tasks_title_length', sql`char_length(${table.title}) between 1 and 200`),
    check('tasks_description_length', sql`char_length(${table.description}) <= 10000`),
    check('tasks_completed_at', sql`${table.completed} = (${table.completed_at} is not null)`)
  ]
)

export type Task = typeof tasks.$inferSelect
