import { createHash } from 'node:crypto'
import { and, desc, eq, getTableColumns, inArray, type SQL, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { v7 as uuidv7 } from 'uuid'
import type { LockTarget, Orm } from './driver.js'
import { IdempotencyKeyConflict } from './errors.js'
import type { Database, Values } from './index.js'
import { type Task, tasks, type VersionedTask } from './schema.js'

export interface NewTask {
  title: string
  description?: string | null
  completed?: boolean
}

/** What is undefined stays as it is. */
export type TaskChanges = Partial<NewTask>

/** What a change found that asked for other versions than the task has: nothing was done. */
export class StaleVersion {
  constructor(readonly version: number) {}
}

/** Longer lists are streamed: a task takes up to 40 kB, and many lists may be under way at once. */
export const LONGEST_ARRAY = 200

/** Builds statements, and has no connection to run them: the database prepares them. */
const build = drizzle.mock()

const { version, idempotency_key, idempotency_digest, ...taskColumns } = getTableColumns(tasks)
const versionedColumns = { ...taskColumns, version }

/**
 * The only SQL on tasks: single statements, prepared once. Every function takes the user first and every
 * statement names the user, so a task of somebody else does not exist for it. No request needs a
 * transaction: what it does is one statement, atomic by itself, and may share its transaction with others' (write-batches.ts).
 *
 * @throws DatabaseUnavailable from every function when the database cannot be reached or does not answer in time
 */
export function taskRepository({ prepareRead, prepareWrite, prepareStream }: Database) {
  const ownTask = and(eq(tasks.user_id, sql.placeholder('user_id')), eq(tasks.id, sql.placeholder('id')))

  // Never backwards and never the same twice, even when the clock was set back or two changes fall into one
  // millisecond.
  const changedAt = sql`greatest(now(), ${tasks.updated_at} + interval '1 millisecond')`

  /** `completed`, with `completed_at` as the moment it last became true. */
  const completion = (completed: SQL) => ({
    completed,
    completed_at: sql`case when not ${completed} then null
      when ${tasks.completed} then ${tasks.completed_at} else ${changedAt} end`,
    updated_at: changedAt,
    version: sql`${tasks.version} + 1`
  })

  // Part of the change itself, so that of two changes that ask for the same version one finds it gone.
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

  // The planner takes an unknown limit for a tenth of the rows, and reads the key backward instead of sorting them
  // (docs/statements.md). This one is no limit. A subquery hides it from custom plans too: a stream's connection often
  // closes before it gets a generic plan. Drizzle writes any SQL here, but its type takes numbers and placeholders only.
  const noLimit = sql`(select null::bigint)` as unknown as number
  const streamStatement = prepareStream(everyTask.limit(noLimit))
  // One more than the longest, to see that there are more. A parameter, so that the generic plan reads backward.
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
      // An update that changes nothing, because only then the row that is there comes back, also when another request
      // is making it at this very moment.
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
        // null is a description too, so whether there is one to set takes a parameter of its own.
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
    build.delete(tasks).where(and(ownTask, expectedVersion)).returning({ version }),
    oneTask
  )

  async function get(user_id: string, id: string): Promise<VersionedTask | undefined> {
    return ownRow(user_id, await getStatement({ user_id, id }))
  }

  /** Why a change of one task changed none: there is none, or it has another version than asked for. */
  async function unchanged(
    user_id: string,
    id: string,
    versions?: number[]
  ): Promise<StaleVersion | undefined> {
    const task = versions && (await get(user_id, id))
    return task && new StaleVersion(task.version)
  }

  return {
    /**
     * Every task of the user, newest first; with `completed`, only those that are, or are not. A list of more than
     * `LONGEST_ARRAY` tasks comes in batches, all as they were at one moment.
     */
    async list(user_id: string, completed?: boolean): Promise<Task[] | AsyncIterable<Task[]>> {
      const values = { user_id, completed: completed ?? null }
      const rows = await listStatement({ ...values, limit: LONGEST_ARRAY + 1 })
      // From the start again, because what came after those read was written down at another moment.
      return rows.length > LONGEST_ARRAY
        ? ownBatches(user_id, streamStatement(values))
        : ownRows(user_id, rows)
    },

    async create(user_id: string, task: NewTask): Promise<VersionedTask> {
      return ownRow(user_id, await createStatement(valuesOf(user_id, task))) as VersionedTask
    },

    /**
     * As `create`, but at most once for a key of the user: after that, the task that the first call made, as it is
     * now. When that task is deleted, the key is free again.
     *
     * @throws IdempotencyKeyConflict when the first call sent something else
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

    /** The task, or undefined when the user has none with this id. */
    get,

    /**
     * @param versions of which the task must have one; any will do when undefined
     * @returns the task as it is now, or undefined when the user has none with this id
     */
    async update(user_id: string, id: string, changes: TaskChanges, versions?: number[]) {
      const { title = null, description = null, completed = null } = changes
      const has_description = changes.description !== undefined
      const values = { user_id, id, title, description, has_description, completed, ...expected(versions) }
      const task = ownRow(user_id, await updateStatement(values))
      return task ?? unchanged(user_id, id, versions)
    },

    /** Flips `completed`, or sets it when given; otherwise as `update`. */
    async toggle(user_id: string, id: string, completed?: boolean, versions?: number[]) {
      const values = { user_id, id, completed: completed ?? null, ...expected(versions) }
      const task = ownRow(user_id, await toggleStatement(values))
      return task ?? unchanged(user_id, id, versions)
    },

    /** The version that was deleted, or undefined or StaleVersion as from `update`. */
    async delete(user_id: string, id: string, versions?: number[]) {
      const [deleted] = await deleteStatement({ user_id, id, ...expected(versions) })
      return deleted ?? unchanged(user_id, id, versions)
    }
  }
}

/**
 * Deletes everything that is stored of a user: idempotency keys are part of the tasks. One statement, without a request's
 * deadline. Tasks are locked in the order in which writes that share a transaction lock them, so neither waits for the
 * other for ever.
 *
 * @returns how many tasks there were, and how many of them had an idempotency key
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

/** Upper and lower case are the same id, so they must sort as one. */
export const oneTask = ({ user_id, id }: Values): LockTarget => ({
  user: String(user_id),
  task: String(id).toLowerCase()
})

/** A repeated create with its key locks the task that the first one made. */
const anyTask = ({ user_id }: Values): LockTarget => ({ user: String(user_id), task: undefined })

/**
 * Every statement names the user, so a row of somebody else means that a driver or a pooler has mixed up answers. It
 * reaches nobody.
 *
 * @throws Error (500) when a row is another user's
 */
function ownRows<Row extends { user_id: string }>(user_id: string, rows: Row[]): Row[] {
  for (const row of rows) {
    if (row.user_id !== user_id) throw new Error("the database answered with another user's row")
  }
  return rows
}

/** As `ownRows`, for a statement of one task. */
const ownRow = <Row extends { user_id: string }>(user_id: string, rows: Row[]): Row | undefined =>
  ownRows(user_id, rows)[0]

/** As `ownRows`, for a stream. */
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

/** As one text, because the two drivers disagree about arrays. */
const expected = (versions?: number[]) => ({ versions: versions?.join(',') ?? null })

/** Tells what one create sent from what another did; what is left out equals its default. */
const digestOf = ({ title, description = null, completed = false }: NewTask) =>
  createHash('sha256')
    .update(JSON.stringify([title, description, completed]))
    .digest('base64url')
