import { sql } from 'drizzle-orm'
import { check, pgTable, primaryKey, uniqueIndex } from 'drizzle-orm/pg-core'

const UTC = { withTimezone: true, precision: 3, mode: 'string' } as const

/**
 * Columns, rows and JSON have the same names, so no code maps between them.
 *
 * The primary key begins with the user, so a statement must name the owner to find a task. Ids are UUIDv7 and sort by
 * age, so a user's list, newest first, is one backward scan of this index.
 */
export const tasks = pgTable(
  'tasks',
  (column) => ({
    user_id: column.text().notNull(),
    id: column.uuid().notNull(),
    title: column.text().notNull(),
    description: column.text(),
    completed: column.boolean().notNull(),
    completed_at: column.timestamp(UTC),
    created_at: column.timestamp(UTC).notNull().defaultNow(),
    updated_at: column.timestamp(UTC).notNull().defaultNow(),
    /** The entity tag. Every change increments it. */
    version: column.integer().notNull().default(1),
    /** The `Idempotency-Key` of the create, and a digest of the values that were sent with it. */
    idempotency_key: column.text(),
    idempotency_digest: column.text()
  }),
  (table) => [
    primaryKey({ columns: [table.user_id, table.id] }),
    // A partial index: tasks without a key are not in it.
    uniqueIndex('tasks_idempotency_key')
      .on(table.user_id, table.idempotency_key)
      .where(sql`${table.idempotency_key} is not null`),
    // The API validates these rules first. The checks are for other programs that write to the table.
    check('tasks_user_id_length', sql`char_length(${table.user_id}) between 1 and 255`),
    check('tasks_title_length', sql`char_length(${table.title}) between 1 and 200`),
    check('tasks_description_length', sql`char_length(${table.description}) <= 10000`),
    check('tasks_completed_at', sql`${table.completed} = (${table.completed_at} is not null)`)
  ]
)

type Row = typeof tasks.$inferSelect

/** A task as the API shows it. */
export type Task = Omit<Row, 'version' | 'idempotency_key' | 'idempotency_digest'>
/** A task with its entity tag's version. */
export type VersionedTask = Task & Pick<Row, 'version'>
