import type { BuiltStatement, Database } from '../../db/index.js'
import { LONGEST_ARRAY, taskRepository } from '../../db/tasks.js'
import { startApp } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import t, { type Test } from '../support/tap.js'

/**
 * PostgreSQL plans a prepared statement for its values five times. Then it uses a generic plan, if that seems
 * cheaper.
 */
const CUSTOM_PLANS = 5
const LENGTHS = { one: 1, twenty: 20, 'two-hundred': LONGEST_ARRAY, many: 20_000 }
const USERS = Object.keys(LENGTHS)
const DELETED = 5_000

const BACKWARD = /Index Scan Backward using tasks_user_id_id_pk/

type Sql = ReturnType<typeof sqlClient>

t.test('lists of any length are read backward from the key, without a sort', async (t) => {
  const url = await emptyDatabase(t)
  await startApp(t, 'postgres', { DATABASE_URL: url })
  const sql = sqlClient(t, url)
  await sql`alter table tasks set (autovacuum_enabled = off)`
  await fill(sql)

  await t.test('in a table without statistics', (t) => areReadBackward(t, sql))
  await sql`analyze tasks`
  await t.test('in a table with statistics', (t) => areReadBackward(t, sql))
  await sql`
    insert into tasks (user_id, id, title, completed)
    select user_id, gen_random_uuid(), 'Deleted', false
    from unnest(${USERS}::text[]) user_id, generate_series(1, ${DELETED}::int)`
  await sql`delete from tasks where title = 'Deleted'`
  await t.test('after many tasks were deleted', (t) => areReadBackward(t, sql))
  await sql`analyze tasks`
  await t.test('with new statistics after that', (t) => areReadBackward(t, sql))
})

async function areReadBackward(t: Test, sql: Sql): Promise<void> {
  const { list, stream } = statements()
  for (const user of USERS) {
    const { plan, isGeneric } = await plansOf(sql, list, `'${user}', null, null, ${LONGEST_ARRAY + 1}`)
    t.ok(isGeneric, `an array for ${user} is not planned every time`)
    t.match(plan, BACKWARD, `an array for ${user}`)
    t.notMatch(plan, /Sort/, `an array for ${user}`)
    for (const mode of ['force_custom_plan', 'force_generic_plan']) {
      const { plan } = await plansOf(sql, stream, `'${user}', null, null`, mode)
      t.match(plan, BACKWARD, `a stream for ${user}, ${mode}`)
      t.notMatch(plan, /Sort/, `a stream for ${user}, ${mode}`)
    }
  }
}

/** Each user's tasks are spread over the whole table, as when users create one from time to time. */
async function fill(sql: Sql): Promise<void> {
  await sql`create table made (user_id text, at float)`
  for (const [user, length] of Object.entries(LENGTHS)) {
    await sql`insert into made select ${user}, random() from generate_series(1, ${length}::int)`
  }
  await sql`insert into made select 'user-' || n % 1000, random() from generate_series(1, 20000) n`
  await sql`
    insert into tasks (user_id, id, title, completed)
    select user_id, ('01900000' || lpad(to_hex(row_number() over (order by at)), 8, '0') || '8000000000000000')::uuid,
      'Something to remember', false
    from made order by at`
}

/** The repository's statements for a short list and for a streamed one. */
function statements(): { list: string; stream: string } {
  const reads: string[] = []
  const streams: string[] = []
  const collectIn = (texts: string[]) => (statement: BuiltStatement<unknown>) =>
    texts.push(statement.toSQL().sql)
  taskRepository({
    prepareRead: collectIn(reads),
    prepareWrite: () => {},
    prepareStream: collectIn(streams)
  } as unknown as Database)
  const [stream = ''] = streams
  return { list: reads.find((text) => text.includes('order by')) ?? '', stream }
}

/** The plan of a statement on a connection that has executed it several times. */
async function plansOf(sql: Sql, text: string, values: string, mode = 'auto') {
  return sql.begin(async (sql) => {
    await sql.unsafe(`set local plan_cache_mode = ${mode}`)
    await sql.unsafe(`prepare tasks_list (text, boolean, boolean) as ${text}`)
    const execute = `execute tasks_list (${values})`
    for (let i = 0; i < CUSTOM_PLANS; i++) await sql.unsafe(`explain ${execute}`)
    const rows = await sql.unsafe(`explain ${execute}`)
    const [{ generic_plans }] = (await sql`
      select generic_plans::int from pg_prepared_statements where name = 'tasks_list'`) as unknown as [
      { generic_plans: number }
    ]
    await sql.unsafe('deallocate tasks_list')
    return { plan: rows.map((row) => row['QUERY PLAN']).join('\n'), isGeneric: generic_plans > 0 }
  })
}
