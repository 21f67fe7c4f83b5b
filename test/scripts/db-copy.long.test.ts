import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { clientOf, startApp } from '../support/api.js'
import { databaseEnv, emptyDatabase, sqlClient } from '../support/databases.js'
import { emptyFolder, runScript, until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

const SCRIPT = fileURLToPath(new URL('../../scripts/db-copy.js', import.meta.url))
/** Several batches, so that the kill comes between two of them. */
const MANY = 3_000

const copy = (t: Test, env: Record<string, string>) => runScript(emptyFolder(t), 'db-copy', env)

/** Every column of every task, as the database's own text. */
const rowsIn = async (t: Test, url: string) =>
  (await sqlClient(t, url)`select t::text as row from tasks t order by user_id collate "C", id`).map(
    ({ row }) => row
  )

/** Fills an embedded database through the API. Returns the API's answers. */
async function source(t: Test) {
  const env = (await databaseEnv(t, 'embedded')) as { DATA_DIR: string }
  const app = await startApp(t, 'embedded', env)
  const users = ['alice', 'Alice', "o'hara\\|ä b"]
  const clients = await Promise.all(users.map((user) => clientOf(app, user)))
  const [alice] = clients as [(typeof clients)[number]]
  for (const call of clients) {
    await call('POST', '', { title: '\ufeffa mark, and \\N \\. "quotes" {braces}', description: '\ufeff' })
    await call('POST', '', { title: '\u2028💡\t\r\n ', description: '' }, { 'idempotency-key': 'once' })
  }
  const { id } = (await alice('POST', '', { title: 'Changed often' })).json
  for (let times = 0; times < 3; times++) await alice('PATCH', `/${id}/complete`)
  await app.db.withAdminConnection((orm) =>
    orm.execute(
      `insert into tasks (user_id, id, title, description, completed)
      select 'user ' || n % 7, gen_random_uuid(), 'Task ' || n, repeat('x', n), false
      from generate_series(1, ${MANY}) n`
    )
  )
  const answers = async (clients: Awaited<ReturnType<typeof clientOf>>[]) => {
    const lists = await Promise.all(clients.map((call) => call('GET')))
    const task = await (clients[0] as (typeof clients)[number])('GET', `/${id}`)
    return { lists: lists.map(({ text }) => text), etag: task.headers.etag, task: task.text }
  }
  const before = await answers(clients)
  await app.close()
  return { env, users, before, answers, count: MANY + users.length * 2 + 1 }
}

t.test('an embedded database', async (t) => {
  const { env, users, before, answers, count } = await source(t)
  const DATABASE_URL = await emptyDatabase(t)

  t.test('is copied completely after a copy that was killed, with the same answers', async (t) => {
    const child = spawn(process.execPath, [SCRIPT], {
      cwd: emptyFolder(t),
      env: { PATH: process.env.PATH, ...env, DATABASE_URL },
      stdio: 'ignore'
    })
    const sql = sqlClient(t, DATABASE_URL)
    const copying = () => sql`
      select from pg_stat_activity where datname = current_database() and state <> 'idle' and query like 'insert into "tasks" %'`
    await until(async () => child.exitCode !== null || (await copying()).length > 0)
    child.kill('SIGKILL')
    await once(child, 'close')
    t.equal(child.signalCode, 'SIGKILL', 'it was still copying')
    await until(async () => (await copying()).length === 0)
    t.equal((await rowsIn(t, DATABASE_URL)).length, 0)

    const { code, out, err } = await copy(t, { ...env, DATABASE_URL })
    t.strictSame({ code, err }, { code: 0, err: '' })
    t.match(out, new RegExp(`^copied ${count} tasks; both databases have sha256 [0-9a-f]{64}\\n$`))
    const app = await startApp(t, 'postgres', { DATABASE_URL })
    const clients = await Promise.all(users.map((user) => clientOf(app, user)))
    t.strictSame(await answers(clients), before)
    const [alice] = clients as [(typeof clients)[number]]
    const again = await alice(
      'POST',
      '',
      { title: '\u2028💡\t\r\n ', description: '' },
      { 'idempotency-key': 'once' }
    )
    t.equal(again.headers['idempotency-replayed'], 'true', 'its idempotency keys are in use')
    const other = await alice('POST', '', { title: 'other' }, { 'idempotency-key': 'once' })
    t.equal(other.json.code, 'idempotency_key_reused')
  })

  t.test('is not copied into a database that has tasks', async (t) => {
    const rows = await rowsIn(t, DATABASE_URL)
    t.strictSame(await copy(t, { ...env, DATABASE_URL }), {
      code: 1,
      out: '',
      err: `DATABASE_URL: there are tasks already; db:copy needs a database without any\n`
    })
    t.strictSame(await rowsIn(t, DATABASE_URL), rows)
  })

  t.test('is copied with the two roles of a production database', async (t) => {
    const url = await emptyDatabase(t)
    const admin = sqlClient(t, url)
    const role = `copies_${process.pid}`
    await admin.unsafe(`create role ${role} login`)
    t.teardown(() => admin.unsafe(`drop owned by ${role}; drop role ${role}`))
    const service = {
      NODE_ENV: 'production',
      DATABASE_URL: url.replace('postgres@', `${role}@`),
      MIGRATION_DATABASE_URL: url
    }
    const { code, err } = await copy(t, { ...env, ...service })
    t.strictSame({ code, err }, { code: 0, err: '' })
    t.equal((await rowsIn(t, url)).length, count)
  })

  for (const [what, spoil] of [
    ['changes a text', `new.title := new.title || ' ';`],
    ['changes a time by a millisecond', `new.updated_at := new.updated_at + interval '1 millisecond';`],
    ['drops a mark', `new.description := ltrim(new.description, U&'\\FEFF');`],
    ['loses a row', `if new.title = 'Task 7' then return null; end if;`]
  ] as const) {
    t.test(`is not copied if the other database ${what}`, async (t) => {
      const url = await emptyDatabase(t)
      await (await startApp(t, 'postgres', { DATABASE_URL: url })).close()
      await sqlClient(t, url).unsafe(`
        create function spoil() returns trigger language plpgsql as $$ begin ${spoil} return new; end $$;
        create trigger spoil before insert on tasks for each row execute function spoil()`)
      const { code, out, err } = await copy(t, { ...env, DATABASE_URL: url })
      t.strictSame({ code, out }, { code: 1, out: '' })
      t.match(err, /^DATABASE_URL: the copy differs from the original and was not kept: [^\n]+\n$/)
      t.equal((await rowsIn(t, url)).length, 0)
    })
  }

  t.test('is locked while it is copied, and does not change', async (t) => {
    const app = await startApp(t, 'embedded', env)
    const { code, out, err } = await copy(t, { ...env, DATABASE_URL: await emptyDatabase(t) })
    t.strictSame({ code, out }, { code: 1, out: '' })
    t.match(err, /^DATA_DIR: [^\n]+ is in use by process [^\n]+\n$/)
    t.strictSame(await answers(await Promise.all(users.map((user) => clientOf(app, user)))), before)
    await app.close()
  })
})

t.test('a wrong setting prints one line, with code 1', async (t) => {
  const { DATA_DIR } = (await databaseEnv(t, 'embedded')) as { DATA_DIR: string }
  const DATABASE_URL = await emptyDatabase(t)
  for (const [what, env, line] of [
    ['no target', { DATA_DIR }, /^DATABASE_URL must be set: [^\n]+\n$/],
    ['no source', { DATA_DIR: emptyFolder(t), DATABASE_URL }, /^DATA_DIR: there is no database in [^\n]+\n$/]
  ] as const) {
    const { code, out, err } = await copy(t, env)
    t.strictSame({ code, out }, { code: 1, out: '' }, what)
    t.match(err, line)
  }
})
