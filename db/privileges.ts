import { sql } from 'drizzle-orm'
import type { Orm } from './driver.js'
import { StartError } from './errors.js'
import { journal } from './journal.js'
import { tasks } from './schema.js'
import { INSUFFICIENT_PRIVILEGE } from './sqlstate.js'

/** Grants the service's role only what it needs: to read and write tasks, and to read the journal. */
export async function grantToService(tx: Orm, service: string): Promise<void> {
  const role = sql.identifier(service)
  await tx.execute(sql`grant select, insert, update, delete on ${tasks} to ${role}`)
  await tx.execute(sql`grant select on ${journal} to ${role}`)
}

/**
 * Checks that this role can read and write all tasks. With row-level security and no policy, all lists would be empty, and
 * `user:delete` would delete nothing. Policies are the operator's choice.
 *
 * @throws StartError if it cannot
 */
export async function checkAccess(orm: Orm): Promise<void> {
  const [found] = await orm
    .select({
      missing: sql<string | null>`(
        select string_agg(name, ', ') from unnest(array['select', 'insert', 'update', 'delete']) name
        where not has_table_privilege('tasks', name))`,
      isHidden: sql<boolean>`row_security_active('tasks')
        and not exists (select from pg_policy where polrelid = 'tasks'::regclass)`
    })
    .from(sql`(select) as nothing`)
  if (found?.missing) throw new StartError(`its role may not ${found.missing} in the table tasks`)
  if (found?.isHidden) {
    throw new StartError('row-level security without a policy hides the rows of tasks: disable it')
  }
}

/**
 * Finds roles that have rights on our tables or their partitions through default privileges. Supabase, for example, opens
 * every new table to `anon` in this way. Rights that were granted explicitly to other roles are left alone.
 *
 * @param service the service's role, if another role migrates
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
 * Revokes the rights that default privileges gave. Every start does this, because a restore from a dump creates the tables
 * and these rights again.
 */
export async function closeToOthers(tx: Orm, service?: string): Promise<void> {
  for (const { table, role } of await openedByDefault(tx, service)) {
    await tx.execute(sql.raw(`revoke all on ${table} from ${role} cascade`))
  }
  const left = await openedByDefault(tx, service)
  if (left.length === 0) return
  // If the role is not the owner, PostgreSQL revokes nothing and only warns.
  const roles = new Set(left.map(({ role }) => role))
  const error = new Error(`default privileges open tasks to ${[...roles].join(', ')}`)
  throw Object.assign(error, { code: INSUFFICIENT_PRIVILEGE })
}
