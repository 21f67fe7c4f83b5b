import { getTableColumns, sql } from 'drizzle-orm'
import type { Orm } from './driver.js'
import { StartError } from './errors.js'
import type { Database } from './index.js'
import { tasks } from './schema.js'

/** Number of tasks in one statement: at most 20 MB, and fewer values than PostgreSQL's limit of 65,535. */
const BATCH = 500

interface Summary {
  count: number
  /** Digest of every column of every task, computed by the database. */
  sha256: string
}

/**
 * Copies every column of every task in one transaction. It is committed only if both databases compute the same digest.
 * No other process may use the source meanwhile. Other writes to the target wait.
 *
 * @throws StartError if the target has tasks, or the digests differ
 */
export async function copyTasks(source: Database, target: Database): Promise<Summary> {
  return target.withAdminConnection((orm) =>
    orm.transaction(async (tx) => {
      await tx.execute(sql`lock table ${tasks} in share row exclusive mode`)
      if ((await tx.select({ id: tasks.id }).from(tasks).limit(1)).length > 0) {
        throw new StartError('DATABASE_URL: there are tasks already; db:copy needs a database without any')
      }
      for await (const batch of batchesOf(source)) await tx.insert(tasks).values(batch)
      const [sent, arrived] = [await source.withAdminConnection(summary), await summary(tx)]
      if (sent.count !== arrived.count || sent.sha256 !== arrived.sha256) {
        const text = ({ count, sha256 }: Summary) => `${count} tasks with sha256 ${sha256}`
        throw new StartError(
          `DATABASE_URL: the copy differs from the original and was not kept: ${text(arrived)}, not ${text(sent)}`
        )
      }
      return arrived
    })
  )
}

/** Pages by the key, because PGlite keeps the whole result of a statement in memory. */
async function* batchesOf(source: Database) {
  let last: typeof tasks.$inferSelect | undefined
  do {
    const after = last && sql`(${tasks.user_id}, ${tasks.id}) > (${last.user_id}, ${last.id}::uuid)`
    const batch = await source.withAdminConnection((orm) =>
      orm.select().from(tasks).where(after).orderBy(tasks.user_id, tasks.id).limit(BATCH)
    )
    if (batch.length > 0) yield batch
    last = batch.at(-1)
  } while (last !== undefined)
}

async function summary(orm: Orm): Promise<Summary> {
  const columns = sql.join(Object.values(getTableColumns(tasks)), sql`, `)
  const digest = sql`sha256(convert_to((${columns})::text, 'UTF8'))`
  // In byte order, because the two databases may sort text differently.
  const all = sql`string_agg(${digest}, '' order by ${tasks.user_id} collate "C", ${tasks.id})`
  const [row] = await orm
    .select({
      count: sql<number>`count(*)::int`,
      sha256: sql<string>`encode(sha256(coalesce(${all}, '')), 'hex')`
    })
    .from(tasks)
  return row as Summary
}
