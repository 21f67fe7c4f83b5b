import { and, desc, eq, type SQL, sql } from 'drizzle-orm'
import { v7 as uuidv7 } from 'uuid'
import type { Database } from './client.js'
import { type Task, tasks } from './schema.js'

export interface NewTask {
  title: string
  description?: string | null
  completed?: boolean
}

/** What is undefined stays as it is. */
export type TaskChanges = Partial<NewTask>

export type TaskRepository = ReturnType<typeof taskRepository>

/**
 * The only SQL on tasks: six single statements, prepared once. Every function takes the user first and every
 * statement names the user, so a task of somebody else does not exist for it. There is no transaction because
 * there is nothing to hold together: what a request does is one statement, atomic by itself.
 *
 * @throws Unavailable (503) from every function when the database cannot be reached or does not answer in time
 */
export function taskRepository({ orm, run }: Database) {
  const ownTask = and(eq(tasks.user_id, sql.placeholder('user_id')), eq(tasks.id, sql.placeholder('id')))

  // Never backwards and never the same twice, even when the clock was set back or two changes fall into one
  // millisecond.
  const changedAt = sql`greatest(now(), ${tasks.updated_at} + interval '1 millisecond')`

  /** `completed`, with `completed_at` as the moment it last became true. */
  const completion = (completed: SQL) => ({
    completed,
    completed_at: sql`case when not ${completed} then null
      when ${tasks.completed} then ${tasks.completed_at} else ${changedAt} end`,
    updated_at: changedAt
  })

  const listStatement = orm
    .select()
    .from(tasks)
    .where(
      and(
        eq(tasks.user_id, sql.placeholder('user_id')),
        sql`(${sql.placeholder('completed')}::boolean is null or ${tasks.completed} = ${sql.placeholder('completed')}::boolean)`
      )
    )
    .orderBy(desc(tasks.id))
    .prepare('tasks_list')

  const createStatement = orm
    .insert(tasks)
    .values({
      user_id: sql.placeholder('user_id'),
      id: sql.placeholder('id'),
      title: sql.placeholder('title'),
      description: sql.placeholder('description'),
      completed: sql.placeholder('completed'),
      completed_at: sql`case when ${sql.placeholder('completed')}::boolean then now() end`
    })
    .returning()
    .prepare('tasks_create')

  const getStatement = orm.select().from(tasks).where(ownTask).prepare('tasks_get')

  const updateStatement = orm
    .update(tasks)
    .set({
      title: sql`coalesce(${sql.placeholder('title')}::text, ${tasks.title})`,
      // null is a description too, so whether there is one to set takes a parameter of its own.
      description: sql`case when ${sql.placeholder('has_description')}::boolean
        then ${sql.placeholder('description')}::text else ${tasks.description} end`,
      ...completion(sql`coalesce(${sql.placeholder('completed')}::boolean, ${tasks.completed})`)
    })
    .where(ownTask)
    .returning()
    .prepare('tasks_update')

  const toggleStatement = orm
    .update(tasks)
    .set(completion(sql`coalesce(${sql.placeholder('completed')}::boolean, not ${tasks.completed})`))
    .where(ownTask)
    .returning()
    .prepare('tasks_toggle')

  const deleteStatement = orm.delete(tasks).where(ownTask).returning({ id: tasks.id }).prepare('tasks_delete')

  return {
    /** Every task of the user, newest first; with `completed`, only those that are, or are not. */
    list: (user_id: string, completed?: boolean): Promise<Task[]> =>
      run(() => listStatement.execute({ user_id, completed: completed ?? null })),

    async create(user_id: string, { title, description = null, completed = false }: NewTask): Promise<Task> {
      const values = { user_id, id: uuidv7(), title, description, completed }
      const [task] = await run(() => createStatement.execute(values))
      return task as Task
    },

    /** The task, or undefined when the user has none with this id. */
    async get(user_id: string, id: string): Promise<Task | undefined> {
      const [task] = await run(() => getStatement.execute({ user_id, id }))
      return task
    },

    /** The task as it is now, or undefined when the user has none with this id. */
    async update(user_id: string, id: string, changes: TaskChanges): Promise<Task | undefined> {
      const { title = null, description = null, completed = null } = changes
      const values = {
        user_id,
        id,
        title,
        description,
        has_description: changes.description !== undefined,
        completed
      }
      const [task] = await run(() => updateStatement.execute(values))
      return task
    },

    /** Flips `completed`, or sets it when given. The task as it is now, or undefined as above. */
    async toggle(user_id: string, id: string, completed?: boolean): Promise<Task | undefined> {
      const [task] = await run(() => toggleStatement.execute({ user_id, id, completed: completed ?? null }))
      return task
    },

    /** Whether the user had a task with this id. */
    async delete(user_id: string, id: string): Promise<boolean> {
      const deleted = await run(() => deleteStatement.execute({ user_id, id }))
      return deleted.length > 0
    }
  }
}
