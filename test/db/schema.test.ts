import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { generateDrizzleJson, generateMigration } from 'drizzle-kit/api'
import { getTableConfig } from 'drizzle-orm/pg-core'
import type { PostgresError } from 'postgres'
import type { BuiltStatement, Database } from '../../db/index.js'
import * as schema from '../../db/schema.js'
import { taskRepository } from '../../db/tasks.js'
import { migratedDatabase, sqlClient } from '../support/databases.js'
import { ROOT } from '../support/root.js'
import t from '../support/tap.js'

const MIGRATIONS = pathToFileURL(join(ROOT, 'db/migrations/'))
const read = (name: string) => JSON.parse(readFileSync(new URL(name, MIGRATIONS), 'utf8'))

t.test('the key begins with the owner, and columns are named as in the API', async (t) => {
  const { name, columns, primaryKeys, checks, foreignKeys, indexes } = getTableConfig(schema.tasks)
  t.equal(name, 'tasks')
  t.strictSame(
    columns.map((column) => [column.name, column.getSQLType(), column.notNull]),
    [
      ['user_id', 'text', true],
      ['id', 'uuid', true],
      ['title', 'text', true],
      ['description', 'text', false],
      ['completed', 'boolean', true],
      ['completed_at', 'timestamp(3) with time zone', false],
      ['created_at', 'timestamp(3) with time zone', true],
      ['updated_at', 'timestamp(3) with time zone', true],
      ['version', 'integer', true],
      ['idempotency_key', 'text', false],
      ['idempotency_digest', 'text', false]
    ]
  )
  t.strictSame(
    primaryKeys.map((key) => key.columns.map((column) => column.name)),
    [['user_id', 'id']]
  )
  t.strictSame(checks.map((check) => check.name).sort(), [
    'tasks_completed_at',
    'tasks_description_length',
    'tasks_title_length',
    'tasks_user_id_length'
  ])
  t.strictSame(foreignKeys, [])
  t.match(
    indexes.map(({ config }) => config),
    [
      {
        name: 'tasks_idempotency_key',
        unique: true,
        columns: [{ name: 'user_id' }, { name: 'idempotency_key' }]
      }
    ]
  )
})

t.test('the database refuses values that the API would refuse', async (t) => {
  const url = await migratedDatabase(t)
  const sql = sqlClient(t, url)
  const right = {
    user_id: 'alice',
    id: '01890000-0000-7000-8000-000000000000',
    title: 'a',
    description: null as string | null,
    completed: false,
    completed_at: null as string | null
  }
  const insert = (values: object) =>
    sql`insert into tasks ${sql({ ...right, id: crypto.randomUUID(), ...values })}`.then(
      () => 'accepted',
      ({ code, constraint_name, column_name }: PostgresError) =>
        [code, constraint_name ?? column_name].filter(Boolean).join(' ')
    )
  const CHECK = '23514'
  const NULL = '23502'
  const now = '2026-01-01T00:00:00Z'
  await insert(right)
  for (const [values, expected] of [
    [{}, 'accepted'],
    [right, '23505 tasks_user_id_id_pk'],
    [{ id: right.id, user_id: 'bob' }, 'accepted'],
    [{ user_id: '💡'.repeat(255), title: '💡'.repeat(200), description: '💡'.repeat(10_000) }, 'accepted'],
    [{ user_id: '' }, `${CHECK} tasks_user_id_length`],
    [{ user_id: 'a'.repeat(256) }, `${CHECK} tasks_user_id_length`],
    [{ title: '' }, `${CHECK} tasks_title_length`],
    [{ title: 'a'.repeat(201) }, `${CHECK} tasks_title_length`],
    [{ description: '' }, 'accepted'],
    [{ description: 'a'.repeat(10_001) }, `${CHECK} tasks_description_length`],
    [{ completed: true, completed_at: now }, 'accepted'],
    [{ completed: true }, `${CHECK} tasks_completed_at`],
    [{ completed_at: now }, `${CHECK} tasks_completed_at`],
    [{ user_id: null }, `${NULL} user_id`],
    [{ id: null }, `${NULL} id`],
    [{ title: null }, `${NULL} title`],
    [{ completed: null }, `${NULL} completed`],
    [{ created_at: null }, `${NULL} created_at`],
    [{ updated_at: null }, `${NULL} updated_at`]
  ] as const) {
    t.equal(await insert(values), expected, JSON.stringify(values).slice(0, 60))
  }
})

t.test("the key alone finds a user's tasks", async (t) => {
  const url = await migratedDatabase(t)
  const sql = sqlClient(t, url)
  await sql`insert into tasks (user_id, id, title, completed)
    select 'user' || n % 500, gen_random_uuid(), 'a', false from generate_series(1, 10000) n`
  await sql`analyze tasks`
  const texts: string[] = []
  const collect = (statement: BuiltStatement<unknown>) => texts.push(statement.toSQL().sql)
  const db = { prepareRead: collect, prepareWrite: collect, prepareStream: collect }
  taskRepository(db as unknown as Database)
  const onTasks = texts.filter((text) => !text.startsWith('insert'))
  t.equal(onTasks.length, 6)
  for (const text of onTasks) {
    const plan = await sql.unsafe(`explain (generic_plan) ${text}`)
    const lines = plan.map((row) => row['QUERY PLAN']).join('\n')
    t.match(lines, /tasks_user_id_id_pk/, text)
    t.notMatch(lines, /Seq Scan/, text)
  }
})

t.test('the migrations create exactly the schema: drizzle-kit has nothing to add', async (t) => {
  const { entries } = read('meta/_journal.json')
  const last = String(entries.at(-1).idx).padStart(4, '0')
  const committed = read(`meta/${last}_snapshot.json`)
  t.strictSame(await generateMigration(committed, generateDrizzleJson(schema, committed.id)), [])

  // The migrated database has the same columns.
  const url = await migratedDatabase(t)
  const sql = sqlClient(t, url)
  const columns = await sql`
    select attname as name, format_type(atttypid, atttypmod) as type, attnotnull as not_null
    from pg_attribute where attrelid = 'tasks'::regclass and attnum > 0 and not attisdropped order by attnum`
  t.strictSame(
    columns.map(({ name, type, not_null }) => [name, type, not_null]),
    getTableConfig(schema.tasks).columns.map((column) => [
      column.name,
      column.getSQLType().replace('timestamp (3)', 'timestamp(3)'),
      column.notNull
    ])
  )
  const checks =
    await sql`select conname from pg_constraint where conrelid = 'tasks'::regclass and contype = 'c'`
  t.strictSame(
    checks.map(({ conname }) => conname).sort(),
    getTableConfig(schema.tasks)
      .checks.map(({ name }) => name)
      .sort()
  )
})

t.test('no migration in the journal changes or disappears', async (t) => {
  const entries: { idx: number; when: number; tag: string }[] = read('meta/_journal.json').entries
  t.strictSame(
    entries.map(({ idx }) => idx),
    entries.map((_, i) => i)
  )
  t.ok(
    entries.every(({ when }, i) => when > (entries[i - 1]?.when ?? 0)),
    'each is younger than the one before: drizzle skips an older one'
  )
  t.strictSame(
    readdirSync(MIGRATIONS)
      .filter((name) => name.endsWith('.sql'))
      .sort(),
    entries.map(({ tag }) => `${tag}.sql`)
  )
  t.strictSame(
    readdirSync(new URL('meta/', MIGRATIONS)).sort(),
    [...entries.map(({ tag }) => `${tag.slice(0, 4)}_snapshot.json`), '_journal.json'].sort()
  )
})
