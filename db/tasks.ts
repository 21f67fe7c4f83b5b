import { createHash } from 'node:crypto'
import { and, desc, eq, getTableColumns, inArray, type SQL, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { v7 as uuidv7 } from 'uuid'
import type { LockTarget, Orm } from './driver.js'
import { IdempotencyKeyConflict } from './errors.js'
import type { Database, Values } from './index.js'
import { type Task, tasks, type VersionedTask } from './schema.js'

interface NewTask {
  title: string
  description?: string | null
  completed?: boolean
}

/** The task has none of the versions that a change requires. It was not changed. */
export class StaleVersion {
  constructor(readonly version: number) {}
}

/** Lists with more tasks are streamed, because many lists may be read at the same time. */
export const LONGEST_ARRAY = 200
/** So are lists with longer texts, in UTF-16 code units: a task has up to 20,400. A client can leave its answer unread. */
const LONGEST_TEXTS = 262_144

/** Only builds statements: it has no connection. */
const build = drizzle.mock()

const { version, idempotency_key, idempotency_digest, ...taskColumns } = getTableColumns(tasks)
const versionedColumns = { ...taskColumns, version }

/**
 * The only SQL on tasks. Every function takes the user first, and every statement has the user in its condition, so it
 * cannot reach another user's task.
 *
 * Each operation is a single statement, so no request needs a transaction of its own. Writes may share one with other
 * requests (write-batches.ts).
 *
 * @throws DatabaseUnavailable from every function if the database cannot be reached or does not answer in time
 */
export function taskRepository({ prepareRead, prepareWrite, prepareStream }: Database) {
  const ownTask = and(eq(tasks.user_id, sql.placeholder('user_id')), eq(tasks.id, sql.placeholder('id')))

  // updated_at always increases, even if the clock is set back, or two changes fall into one millisecond.
  const changedAt = sql`greatest(now(), ${tasks.updated_at} + interval '1 millisecond')`

  /** Sets `completed`. `completed_at` keeps the time when it last became true. */
  const completion = (completed: SQL) => ({
    completed,
    completed_at: sql`case when not ${completed} then null
      when ${tasks.completed} then ${tasks.completed_at} else ${changedAt} end`,
    updated_at: changedAt,
    version: sql`${tasks.version} + 1`
  })

  // The UPDATE itself checks the version, so of two concurrent changes to one version only one succeeds.
  const expectedVersion = sql`(${sql.placeholder('versions')}::text is null
    or ${tasks.version} = any(string_to_array(${sql.placeholder('versions')}::text, ',')::integer[]))`

  const everyTask = build
    .select(taskColumns)
    .from(tasks)
    .where(
      and(
        eq(tasks.user_id, sql.placeholder('user_id')),
        sql`(${sql.placeholder('completed')}::boolean is null or ${tasks.completed} = ${sql.placeholder('completed')}::boolean)`
      )
    )
    .orderBy(desc(tasks.id))
    .$dynamic()

  // If PostgreSQL does not know the limit, it plans for a tenth of the rows, and scans the key backward instead of sorting
  // (docs/statements.md). It never knows the value of a subquery. A null limit returns all rows. Drizzle's type allows only
  // numbers and placeholders.
  const noLimit = sql`(select null::bigint)` as unknown as number
  const streamStatement = prepareStream(everyTask.limit(noLimit), ({ user_id }) => String(user_id))
  // PostgreSQL does not know the value of a parameter either, once it has a generic plan.
  const listStatement = prepareRead(everyTask.limit(sql.placeholder('limit')))

  const newTask = {
    user_id: sql.placeholder('user_id'),
    id: sql.placeholder('id'),
    title: sql.placeholder('title'),
    description: sql.placeholder('description'),
    completed: sql.placeholder('completed'),
    completed_at: sql`case when ${sql.placeholder('completed')}::boolean then now() end`
  }

  const createStatement = prepareWrite(
    build.insert(tasks).values(newTask).returning(versionedColumns),
    oneTask
  )

  const createOnceStatement = prepareWrite(
    build
      .insert(tasks)
      .values({
        ...newTask,
        idempotency_key: sql.placeholder('key'),
        idempotency_digest: sql.placeholder('digest')
      })
      // "do nothing" would return no row. This update changes nothing, and returns the existing row, even if another
      // request inserts it at the same time.
      .onConflictDoUpdate({
        target: [tasks.user_id, tasks.idempotency_key],
        targetWhere: sql`${tasks.idempotency_key} is not null`,
        set: { idempotency_key: sql`excluded.idempotency_key` }
      })
      .returning({ ...versionedColumns, idempotency_digest }),
    anyTask
  )

  const getStatement = prepareRead(build.select(versionedColumns).from(tasks).where(ownTask))

  const updateStatement = prepareWrite(
    build
      .update(tasks)
      .set({
        title: sql`coalesce(${sql.placeholder('title')}::text, ${tasks.title})`,
        // null is a valid description, so another parameter tells whether the request has one.
        description: sql`case when ${sql.placeholder('has_description')}::boolean
        then ${sql.placeholder('description')}::text else ${tasks.description} end`,
        ...completion(sql`coalesce(${sql.placeholder('completed')}::boolean, ${tasks.completed})`)
      })
      .where(and(ownTask, expectedVersion))
      .returning(versionedColumns),
    oneTask
  )

  const toggleStatement = prepareWrite(
    build
      .update(tasks)
      .set(completion(sql`coalesce(${sql.placeholder('completed')}::boolean, not ${tasks.completed})`))
      .where(and(ownTask, expectedVersion))
      .returning(versionedColumns),
    oneTask
  )

  const deleteStatement = prepareWrite(
    build.delete(tasks).where(and(ownTask, expectedVersion)).returning({ user_id: tasks.user_id, version }),
    oneTask
  )

  async function get(user_id: string, id: string): Promise<VersionedTask | undefined> {
    return ownRow(user_id, await getStatement({ user_id, id }))
  }

  /** Runs a statement that changes the task if it has one of the versions. Without such a task it returns no row. */
  async function change<Row extends { user_id: string }>(
    user_id: string,
    id: string,
    statement: (values: Values) => Promise<Row[]>,
    values: Values,
    versions?: number[]
  ): Promise<Row | StaleVersion | undefined> {
    // Joined into one text, because the two drivers encode arrays differently.
    const expected = versions?.join(',') ?? null
    const row = ownRow(user_id, await statement({ ...values, user_id, id, versions: expected }))
    if (row !== undefined || versions === undefined) return row
    const task = await get(user_id, id)
    return task && new StaleVersion(task.version)
  }

  return {
    /**
     * Returns the user's tasks, newest first: all, or only those whose `completed` has the given value. A list of more
     * than `LONGEST_ARRAY` tasks, or with longer texts than `LONGEST_TEXTS`, comes in batches, all from one snapshot.
     */
    async list(user_id: string, completed?: boolean): Promise<Task[] | AsyncIterable<Task[]>> {
      const values = { user_id, completed: completed ?? null }
      const rows = await listStatement({ ...values, limit: LONGEST_ARRAY + 1 })
      // The stream reads the first rows again, because a second statement has another snapshot.
      return rows.length > LONGEST_ARRAY || lengthOfTexts(rows) > LONGEST_TEXTS
        ? ownBatches(user_id, streamStatement(values))
        : ownRows(user_id, rows)
    },

    async create(user_id: string, task: NewTask): Promise<VersionedTask> {
      return ownRow(user_id, await createStatement(valuesOf(user_id, task))) as VersionedTask
    },

    /**
     * Creates a task at most once for each of the user's keys. A repeated call returns the first call's task in its
     * current state. When that task is deleted, the key is free again.
     *
     * @throws IdempotencyKeyConflict if the first call had other values
     */
    async createOnce(
      user_id: string,
      key: string,
      task: NewTask
    ): Promise<{ task: VersionedTask; replayed: boolean }> {
      const values = { ...valuesOf(user_id, task), key, digest: digestOf(task) }
      const row = ownRow(user_id, await createOnceStatement(values))
      const { idempotency_digest, ...found } = row as VersionedTask & { idempotency_digest: string }
      if (idempotency_digest !== values.digest) throw new IdempotencyKeyConflict()
      return { task: found, replayed: found.id !== values.id }
    },

    /** Returns undefined if the user has no such task. */
    get,

    /**
     * @param changes undefined fields do not change
     * @param versions the task must have one of these; undefined allows any
     * @returns the changed task; undefined if the user has no such task; StaleVersion if it has another version
     */
    async update(user_id: string, id: string, changes: Partial<NewTask>, versions?: number[]) {
      const { title = null, description = null, completed = null } = changes
      const has_description = changes.description !== undefined
      const values = { title, description, has_description, completed }
      return await change(user_id, id, updateStatement, values, versions)
    },

    /** Sets `completed`, or flips it if undefined. Returns the same as `update`. */
    async toggle(user_id: string, id: string, completed?: boolean, versions?: number[]) {
      return await change(user_id, id, toggleStatement, { completed: completed ?? null }, versions)
    },

    /** Returns the deleted task's version; undefined or StaleVersion as in `update`. */
    async delete(user_id: string, id: string, versions?: number[]) {
      return await change(user_id, id, deleteStatement, {}, versions)
    }
  }
}

/**
 * Deletes all tasks of a user in one statement, and the idempotency keys with them. It has no deadline. It locks the tasks
 * in the same order as shared transactions do, so that there is no deadlock.
 *
 * @returns the number of tasks, and the number of those with an idempotency key
 */
export async function deleteUser(orm: Orm, user_id: string): Promise<{ tasks: number; keys: number }> {
  const ofUser = eq(tasks.user_id, user_id)
  const locked = orm.select({ id: tasks.id }).from(tasks).where(ofUser).orderBy(tasks.id).for('update')
  const deleted = orm.$with('deleted').as(
    orm
      .delete(tasks)
      .where(and(ofUser, inArray(tasks.id, locked)))
      .returning({ key: idempotency_key })
  )
  const [counts] = await orm
    .with(deleted)
    .select({ tasks: sql<number>`count(*)::int`, keys: sql<number>`count(${deleted.key})::int` })
    .from(deleted)
  return counts as NonNullable<typeof counts>
}

/** An id in upper case is the same as in lower case, so both must sort equally. */
export const oneTask = ({ user_id, id }: Values): LockTarget => ({
  user: String(user_id),
  task: String(id).toLowerCase()
})

/** A repeated create locks the first one's task, whose id is not known here. */
const anyTask = ({ user_id }: Values): LockTarget => ({ user: String(user_id), task: undefined })

/**
 * Every statement has the user in its condition. So another user's row means that a driver or a pooler has mixed up
 * answers, and it must not be returned.
 *
 * @throws Error (500) if a row is another user's
 */
function ownRows<Row extends { user_id: string }>(user_id: string, rows: Row[]): Row[] {
  for (const row of rows) {
    if (row.user_id !== user_id) throw new Error("the database answered with another user's row")
  }
  return rows
}

const lengthOfTexts = (list: Task[]) =>
  list.reduce((sum, { title, description }) => sum + title.length + (description?.length ?? 0), 0)

/** Like `ownRows`, for one task. */
const ownRow = <Row extends { user_id: string }>(user_id: string, rows: Row[]): Row | undefined =>
  ownRows(user_id, rows)[0]

/** Like `ownRows`, for a stream. */
async function* ownBatches<Row extends { user_id: string }>(
  user_id: string,
  batches: AsyncIterable<Row[]>
): AsyncIterable<Row[]> {
  for await (const rows of batches) yield ownRows(user_id, rows)
}

const valuesOf = (user_id: string, { title, description = null, completed = false }: NewTask) => ({
  user_id,
  id: uuidv7(),
  title,
  description,
  completed
})

/** Creates with equal values have equal digests. A missing field equals its default. */
const digestOf = ({ title, description = null, completed = false }: NewTask) =>
  createHash('sha256')
    .update(JSON.stringify([title, description, completed]))
    .digest('base64url')
