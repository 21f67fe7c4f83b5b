import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { is, Param, type Placeholder } from 'drizzle-orm'
import type { BuiltStatement, Database } from '../../db/index.js'
import { migrate } from '../../db/migrate.js'
import { taskRepository } from '../../db/tasks.js'
import { clientOf, startApp } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { hasProgram, PROGRAMS } from '../support/debian.js'
import { ROOT } from '../support/root.js'
import t, { type Test } from '../support/tap.js'

type Sql = ReturnType<typeof sqlClient>

const FILE = join(ROOT, 'db', 'partition.sql')
const USERS = Array.from({ length: 8 }, (_, n) => `user ${n}`)
/** More than one batch of the script. */
const MANY = 25_000

const partition = (url: string) =>
  promisify(execFile)('psql', [url, '-q', '-v', 'ON_ERROR_STOP=1', '-f', FILE], { env: { PATH: PROGRAMS } })

const fill = (sql: Sql) => sql`
  insert into tasks (user_id, id, title, completed)
  select 'user ' || n % 100, gen_random_uuid(), 'Task ' || n, false from generate_series(1, ${MANY}::int) n`

async function filled(t: Test) {
  const url = await emptyDatabase(t)
  const sql = sqlClient(t, url)
  await startApp(t, 'postgres', { DATABASE_URL: url })
  await fill(sql)
  return { url, sql }
}

const digestOf = async (sql: Sql, table: string) =>
  (
    await sql.unsafe(
      `select count(*)::int, sum(hashtextextended(t::text, 0))::text as digest from ${table} t`
    )
  )[0]

if (hasProgram(t, 'psql', 'postgresql')) {
  t.test('tasks are partitioned while the service is used', async (t) => {
    const url = await emptyDatabase(t)
    const sql = sqlClient(t, url)
    const mark = randomUUID().slice(0, 8)
    const roles = { owner: `owner_${mark}`, service: `service_${mark}`, reader: `reader_${mark}` }
    await sql.unsafe(`
      create role ${roles.owner} login; create role ${roles.service} login; create role ${roles.reader};
      grant create, usage on schema public to ${roles.owner};
      alter default privileges for role ${roles.owner} grant all on tables to ${roles.reader}`)
    t.teardown(async () => {
      for (const role of Object.values(roles)) await sql.unsafe(`drop owned by ${role} cascade`)
      await sql.unsafe(`drop role ${Object.values(roles)}`)
    })
    const urlOf = (role: string) => url.replace('postgres@', `${role}@`)
    const [ownerUrl, serviceUrl] = [urlOf(roles.owner), urlOf(roles.service)]
    const app = await startApp(t, 'postgres', { DATABASE_URL: serviceUrl, MIGRATION_DATABASE_URL: ownerUrl })
    await fill(sql)
    await sql`comment on table tasks is 'It''s ours'`
    // Up to PostgreSQL 16, a column that was dropped looks as if it had a statistics target.
    await sql`alter table tasks add column extra text`
    await sql`alter table tasks drop column extra`

    const load = startLoad(await Promise.all(USERS.map((user) => clientOf(app, user))))
    await partition(ownerUrl)
    const refused = await load.stop()

    t.test('both lists have every change of that time, and none was refused', async (t) => {
      t.strictSame(refused, [])
      t.ok(load.done() > 0)
      for (const [user, ids] of load.kept.entries()) {
        const client = await clientOf(app, USERS[user] as string)
        const list = (await client('GET')).json as { id: string; title: string }[]
        const found = new Map(list.map(({ id, title }) => [id, title]))
        t.strictSame(
          [...ids].filter(([id, title]) => found.get(id) !== title),
          [],
          `what ${USERS[user]} made`
        )
        t.strictSame(
          load.deleted[user]?.filter((id) => found.has(id)),
          [],
          'and deleted'
        )
      }
    })

    t.test('the table has 32 partitions, and is otherwise unchanged', async (t) => {
      const [row] = await sql`select relkind, count(*)::int as partitions from pg_class c
        join pg_inherits on inhparent = c.oid where c.oid = 'tasks'::regclass group by 1`
      t.match(row, { relkind: 'p', partitions: 32 })
      const shape = (table: string) => sql`
        select attname, format_type(atttypid, atttypmod) as type, attnotnull, pg_get_expr(adbin, adrelid) as default
        from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where attrelid = ${table}::regclass and attnum > 0 and not attisdropped order by attnum`
      t.same(await shape('tasks'), await shape('tasks_unpartitioned'))
      const checks = (table: string) => sql`
        select conname, pg_get_constraintdef(oid) as definition from pg_constraint
        where conrelid = ${table}::regclass and contype = 'c' order by 1`
      t.same(await checks('tasks'), await checks('tasks_unpartitioned'))
      t.same(await sql`select obj_description('tasks'::regclass) as comment`, [{ comment: "It's ours" }])
      const indexes = await sql`select indexdef from pg_indexes where tablename = 'tasks' order by indexname`
      t.match(
        indexes.map(({ indexdef }) => indexdef),
        [
          /^CREATE UNIQUE INDEX tasks_idempotency_key .*\(user_id, idempotency_key\) WHERE \(idempotency_key IS NOT NULL\)/,
          /^CREATE UNIQUE INDEX tasks_user_id_id_pk .*\(user_id, id\)$/
        ]
      )
      const left = await sql`select from pg_proc where proname = 'tasks_to_partitions'`
      t.equal(left.length, 0)
    })

    t.test('the roles keep their rights, and have none on a partition', async (t) => {
      const rights = await sql`
        select c.relname as table, pg_get_userbyid(a.grantee) as role, string_agg(privilege_type, ' ' order by privilege_type) as rights
        from pg_class c cross join aclexplode(c.relacl) a
        where c.relname ~ '^tasks(_p..)?$' and a.grantee <> c.relowner group by 1, 2`
      t.same([...rights], [{ table: 'tasks', role: roles.service, rights: 'DELETE INSERT SELECT UPDATE' }])
    })

    t.test('the service starts, and a migration finds the table', async (t) => {
      const again = await startApp(t, 'postgres', { DATABASE_URL: serviceUrl })
      await again.close()
      const owner = await startApp(t, 'postgres', { DATABASE_URL: ownerUrl })
      await owner.db.withAdminConnection(migrate)
      t.equal((await sql`select from pg_inherits where inhparent = 'tasks'::regclass`).length, 32)
      // Examples of statements in a migration.
      await sql
        .begin(async (sql) => {
          const journal = JSON.parse(readFileSync(join(ROOT, 'db/migrations/meta/_journal.json'), 'utf8'))
          t.equal(journal.entries.length, 2, 'of another migration, add what it does to this test')
          await sql`alter table tasks add column note text`
          await sql`alter table tasks add column rank integer not null default 1`
          await sql`create unique index on tasks (user_id, rank, id) where rank is not null`
          await sql`alter table tasks add constraint note_length check (char_length(note) < 10)`
          await sql`savepoint nothing`
          throw 'undone'
        })
        .catch((reason) => t.equal(reason, 'undone'))
    })

    t.test('each statement of the service uses one partition', async (t) => {
      for (const { text, values } of statements()) {
        for (const mode of ['force_custom_plan', 'force_generic_plan']) {
          const plan = await planOf(sql, text, values, mode)
          const scanned = new Set(plan.match(/(?<=Scan.* on )tasks_p\d\d/g))
          t.equal(scanned.size, text.startsWith('insert') ? 0 : 1, `${mode}: ${text}\n${plan}`)
          t.notMatch(plan, /Seq Scan|Sort {2}\(/)
        }
      }
      const parts = await sql`select from tasks group by user_id having count(distinct tableoid) > 1`
      t.equal(parts.length, 0, 'what was inserted is with the rest of its user')
    })

    t.test('all six operations succeed', async (t) => {
      const [alice, bob] = [await clientOf(app, 'alice'), await clientOf(app, 'bob')]
      const key = { 'idempotency-key': 'once' }
      const { json: task } = await alice('POST', '', { title: 'a' }, key)
      t.equal((await alice('POST', '', { title: 'a' }, key)).json.id, task.id)
      t.equal((await alice('POST', '', { title: 'b' }, key)).json.code, 'idempotency_key_reused')
      t.equal((await bob('POST', '', { title: 'b' }, key)).status, 201)
      t.match((await alice('PATCH', `/${task.id}`, { title: 'c' })).json, { title: 'c' })
      t.match((await alice('PATCH', `/${task.id}/complete`)).json, { completed: true })
      t.equal((await alice('PUT', `/${task.id}`, { title: 'd' }, { 'if-match': '"1"' })).status, 412)
      for (const method of ['GET', 'PATCH', 'DELETE']) {
        const body = method === 'PATCH' ? { title: 'x' } : undefined
        t.equal((await bob(method, `/${task.id}`, body)).status, 404, `${method} by bob`)
      }
      t.equal((await alice('GET')).json.length, 1)
      t.equal((await alice('GET', `/${task.id}`)).status, 200)
      t.equal((await alice('DELETE', `/${task.id}`)).status, 204)
      t.strictSame((await alice('GET')).json, [])
    })

    t.test('a second run reports that the table is partitioned already', (t) =>
      t.rejects(partition(ownerUrl), { message: /tasks is partitioned already/ })
    )
  })

  t.test('what belongs to the table is named, and nothing is changed', async (t) => {
    const url = await emptyDatabase(t)
    const sql = sqlClient(t, url)
    await startApp(t, 'postgres', { DATABASE_URL: url })
    const [role] = await sql`select current_user as name`
    for (const [make, name, drop] of [
      ['create view titles as select title from tasks', 'view titles', 'drop view titles'],
      ['create publication p for table tasks', 'publication p', 'drop publication p'],
      [
        'create table notes (u text, t uuid, foreign key (u, t) references tasks (user_id, id))',
        'foreign key of notes',
        'drop table notes'
      ],
      [
        'create trigger mine before update on tasks for each row execute function suppress_redundant_updates_trigger()',
        'trigger mine',
        'drop trigger mine on tasks'
      ],
      [
        'create policy "All rows" on tasks using (true)',
        'policy "All rows"',
        'drop policy "All rows" on tasks'
      ],
      [
        'alter table tasks enable row level security',
        'row-level security',
        'alter table tasks disable row level security'
      ],
      [
        'grant select (title) on tasks to public',
        'rights on the column title',
        'revoke select (title) on tasks from public'
      ],
      [
        'alter table tasks replica identity full',
        'replica identity',
        'alter table tasks replica identity default'
      ],
      [
        'alter table tasks set (autovacuum_vacuum_scale_factor = 0.01)',
        'storage parameters',
        'alter table tasks reset (autovacuum_vacuum_scale_factor)'
      ],
      [
        'alter table tasks set (toast.autovacuum_enabled = false)',
        'storage parameters',
        'alter table tasks reset (toast.autovacuum_enabled)'
      ],
      [
        'alter table tasks alter user_id set statistics 1000',
        'statistics of the column user_id',
        'alter table tasks alter user_id set statistics -1'
      ],
      ['alter table tasks set unlogged', 'unlogged', 'alter table tasks set logged'],
      ['create table more () inherits (tasks)', 'child table more', 'drop table more'],
      [
        'alter table tasks alter user_id set (n_distinct = 1000)',
        'statistics of the column user_id',
        'alter table tasks alter user_id reset (n_distinct)'
      ],
      [
        'create function count_all() returns bigint begin atomic select count(*) from tasks; end',
        'function count_all',
        'drop function count_all'
      ],
      [
        "create function newest(tasks[]) returns tasks language sql as 'select $1[1]'",
        'function newest',
        'drop function newest'
      ],
      [
        'create role somebody; grant create on schema public to somebody; alter table tasks owner to somebody',
        'somebody',
        `alter table tasks owner to ${role?.name}; drop owned by somebody; drop role somebody`
      ]
    ] as const) {
      await sql.unsafe(make)
      const expected = name === 'somebody' ? 'as the owner of tasks: somebody' : `old table: ${name}[(\n]`
      await t.rejects(partition(url), { message: new RegExp(expected) }, name)
      await sql.unsafe(drop)
      t.equal((await sql`select to_regclass('tasks_partitioned') as made`)[0]?.made, null)
    }
    await partition(url)
  })

  t.test('limits for requests do not stop it', async (t) => {
    const { url, sql } = await filled(t)
    for (const [name, value] of [
      ['statement_timeout', '50ms'],
      ['default_transaction_isolation', 'serializable']
    ]) {
      await sql.unsafe(`alter database ${new URL(url).pathname.slice(1)} set ${name} to '${value}'`)
    }
    await partition(url)
    t.equal((await sql`select from pg_inherits where inhparent = 'tasks'::regclass`).length, 32)
  })

  t.test('the next run completes one that was interrupted', async (t) => {
    const { url, sql } = await filled(t)
    await sql.unsafe(`
      create function stop() returns event_trigger language plpgsql as $$ begin raise 'stopped'; end $$;
      create event trigger stop on ddl_command_start when tag in ('DROP TRIGGER') execute function stop()`)
    await t.rejects(partition(url), { message: /stopped/ })
    await sql`drop event trigger stop`
    await sql`delete from tasks where user_id = 'user 1'`
    await sql`update tasks set title = 'changed' where user_id = 'user 2'`
    const before = await digestOf(sql, 'tasks')
    await partition(url)
    t.same(await digestOf(sql, 'tasks'), before)
    t.equal((await sql`select from pg_inherits where inhparent = 'tasks'::regclass`).length, 32)
  })
}

/** Users who create, change and delete tasks all the time. */
function startLoad(clients: Awaited<ReturnType<typeof clientOf>>[]) {
  let isStopped = false
  const kept = clients.map(() => new Map<string, string>())
  const deleted = clients.map(() => [] as string[])
  const refused: string[] = []
  const ends = clients.map(async (call, user) => {
    for (let n = 0; !isStopped; n++) {
      const { status, json, text } = await call('POST', '', { title: 'made' })
      if (status !== 201) {
        refused.push(text)
        continue
      }
      kept[user]?.set(json.id, 'made')
      if (n % 2 === 1) continue
      if (n % 4 === 0) {
        const answer = await call('PATCH', `/${json.id}`, { title: 'changed' })
        if (answer.status === 200) kept[user]?.set(json.id, 'changed')
        else refused.push(answer.text)
      } else {
        const answer = await call('DELETE', `/${json.id}`)
        kept[user]?.delete(json.id)
        if (answer.status === 204) deleted[user]?.push(json.id)
        else refused.push(answer.text)
      }
    }
  })
  return {
    kept,
    deleted,
    done: () => deleted.flat().length,
    async stop() {
      isStopped = true
      await Promise.all(ends)
      return refused
    }
  }
}

const VALUES: Record<string, string> = {
  user_id: `'user 7'`,
  id: `'01900000-0000-7000-8000-000000000000'`,
  title: `'a'`,
  completed: 'false',
  has_description: 'false',
  limit: '201',
  key: `'once'`,
  digest: `'d'`
}

/** The repository's statements, with values. */
function statements(): { text: string; values: string }[] {
  const found: { text: string; values: string }[] = []
  const collect = (statement: BuiltStatement<unknown>) => {
    const { sql: text, params } = statement.toSQL()
    const names = params.map(
      (param) => (is(param, Param) ? (param.value as Placeholder) : (param as Placeholder)).name
    )
    found.push({ text, values: names.map((name) => VALUES[name] ?? 'null').join(', ') })
  }
  taskRepository({
    prepareRead: collect,
    prepareWrite: collect,
    prepareStream: collect
  } as unknown as Database)
  return found
}

async function planOf(sql: Sql, text: string, values: string, mode: string): Promise<string> {
  return sql.begin(async (sql) => {
    await sql.unsafe(`set local plan_cache_mode = ${mode}`)
    await sql.unsafe(`prepare one as ${text}`)
    const rows = await sql.unsafe(`explain execute one (${values})`)
    await sql.unsafe('deallocate one')
    return rows.map((row) => row['QUERY PLAN']).join('\n')
  }) as Promise<string>
}
