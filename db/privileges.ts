import { sql } from 'drizzle-orm'
import type { Orm } from './driver.js'
import { journal } from './journal.js'
import { tasks } from './schema.js'

/** Lets the role of the service do with tasks what the service does, and see which migrations were applied. */
export async function grantToService(tx: Orm, service: string): Promise<void> {
  const role = sql.identifier(service)
  await tx.execute(sql`grant select, insert, update, delete on ${tasks} to ${role}`)
  await tx.execute(sql`grant select on ${journal} to ${role}`)
}

/**
 * Who else holds rights on our tables, or on partitions of them, because default privileges give them on every new table, as Supabase's do to
 * `anon`. Rights that somebody granted to any other role are no concern of ours.
 *
 * @param service the role that the service runs as, when that is another
 */
export async function openedByDefault(orm: Orm, service?: string) {
  return orm
    .selectDistinct({
      table: sql<string>`c.oid::regclass::text`,
      role: sql<string>`coalesce(quote_ident(r.rolname), 'public')`
    })
    .from(
      sql`pg_class c
        cross join aclexplode(c.relacl) held
        join pg_default_acl d on d.defaclobjtype = 'r' and d.defaclnamespace in (0, c.relnamespace)
        cross join aclexplode(d.defaclacl) given
        left join pg_roles r on r.oid = held.grantee
        left join (pg_inherits i join pg_class whole on whole.oid = i.inhparent) on i.inhrelid = c.oid`
    )
    .where(
      sql`coalesce(whole.relname, c.relname) in ('tasks', 'tasks_migrations') and pg_table_is_visible(c.oid)
        and held.grantee = given.grantee and held.grantee not in (c.relowner, d.defaclrole)
        and r.rolname is distinct from coalesce(${service ?? null}, current_user)`
    )
}

/**
 * Takes back what default privileges gave. At every start rather than once: a database that is restored from a dump
 * gets its tables, and these rights with them, anew.
 */
export async function closeToOthers(tx: Orm, service?: string): Promise<void> {
  for (const { table, role } of await openedByDefault(tx, service)) {
    await tx.execute(sql.raw(`revoke all on ${table} from ${role} cascade`))
  }
  const left = await openedByDefault(tx, service)
  if (left.length === 0) return
  // PostgreSQL only warns when somebody revokes who is not the owner.
  const roles = new Set(left.map(({ role }) => role))
  throw Object.assign(new Error(`default privileges open tasks to ${[...roles].join(', ')}`), {
    code: '42501'
  })
}
