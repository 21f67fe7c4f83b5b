import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { clientOf, startApp } from '../support/api.js'
import { databaseEnv, KINDS, sqlClient } from '../support/databases.js'
import { emptyFolder, runScript } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

const ROWS = 10_000

t.test("an export equals the API's list byte for byte", async (t) => {
  for (const kind of KINDS) {
    const env = await databaseEnv(t, kind)
    // A user id is opaque, and must reach the statement unchanged.
    const users = kind === 'embedded' ? ["o'hara|ä b"] : ['alice', '--help']
    const lists = await used(t, kind, env, async (client) => {
      const lists: Record<string, string> = {}
      for (const user of users) {
        const call = await client(user)
        await call('POST', '', { title: `\ufeff"of" ${user}\u2028💡`, description: '\ufeff\n' })
        await call('POST', '', { title: 'done', completed: true }, { 'idempotency-key': 'once' })
        lists[user] = (await call('GET')).text
      }
      return lists
    })
    for (const user of users) {
      t.strictSame(await exported(t, env, '--', user), {
        code: 0,
        out: `${lists[user]}\n`,
        err: `2 tasks of ${JSON.stringify(user)}\n`
      })
    }
  }
})

t.test('an export of many tasks is streamed, and fails if its reader ends early', async (t) => {
  const env = await databaseEnv(t, 'postgres')
  const sql = sqlClient(t, env.DATABASE_URL as string)
  await sql`
    insert into tasks (user_id, id, title, description, completed)
    select 'alice', gen_random_uuid(), 'one of many', repeat('x', 10000), false from generate_series(1, ${ROWS}::int)`
  // They have 100 MB of text.
  const heap = { ...env, NODE_OPTIONS: '--max-old-space-size=64' }
  const { code, out, err } = await exported(t, heap, 'alice')
  t.strictSame({ code, err }, { code: 0, err: `${ROWS} tasks of "alice"\n` })
  const ids = (JSON.parse(out) as { id: string }[]).map(({ id }) => id)
  t.equal(new Set(ids).size, ROWS)
  t.strictSame(ids, ids.toSorted().reverse())
})

t.test(
  "a deletion removes everything of the user, prints the counts, and keeps other users' tasks",
  async (t) => {
    for (const kind of KINDS) {
      const env = await databaseEnv(t, kind)
      await used(t, kind, env, async (client) => {
        const [alice, bob] = [await client('alice'), await client('bob')]
        await alice('POST', '', { title: 'a' }, { 'idempotency-key': 'once' })
        await alice('POST', '', { title: 'b' })
        await bob('POST', '', { title: 'of bob' }, { 'idempotency-key': 'once' })
      })
      const deleted = (count: string) => ({ code: 0, out: `deleted ${count}\n`, err: '' })
      t.strictSame(
        await runScript(emptyFolder(t), 'user-delete', env, ['alice']),
        deleted('2 tasks of "alice", 1 with an idempotency key')
      )
      t.strictSame(
        await runScript(emptyFolder(t), 'user-delete', env, ['alice']),
        deleted('0 tasks of "alice", 0 with an idempotency key'),
        'and may be repeated'
      )
      await used(t, kind, env, async (client) => {
        const [alice, bob] = [await client('alice'), await client('bob')]
        t.equal((await alice('GET')).text, '[]')
        t.match((await bob('GET')).json, [{ title: 'of bob' }])
        // As the guide says: the key is free, and a valid token can create tasks again.
        const again = await alice('POST', '', { title: 'other' }, { 'idempotency-key': 'once' })
        t.equal(again.status, 201)
        t.equal(again.headers['idempotency-replayed'], undefined)
      })
    }
  }
)

t.test('a deletion tells if the table from before the partitions is left', async (t) => {
  const env = await databaseEnv(t, 'postgres')
  await startApp(t, 'postgres', env)
  const sql = sqlClient(t, env.DATABASE_URL as string)
  await sql`create table tasks_unpartitioned (like tasks)`
  const { code, err } = await runScript(emptyFolder(t), 'user-delete', env, ['alice'])
  t.strictSame(
    { code, err },
    { code: 0, err: 'The table tasks_unpartitioned may still have tasks of this user: drop it.\n' }
  )
})

t.test('a wrong call prints one line, with code 1, and changes nothing', async (t) => {
  const cwd = emptyFolder(t)
  const running = await databaseEnv(t, 'embedded')
  await startApp(t, 'embedded', running)
  const USAGE = /^usage: npm run -s user:(export|delete) -- <user id>[^\n]*\n$/
  const cases: [what: string, env: Record<string, string>, args: string[], line: RegExp][] = [
    ['no user', {}, [], USAGE],
    ['an empty user', {}, [''], USAGE],
    ['two users', {}, ['alice', 'bob'], USAGE],
    ['a user that begins with a hyphen', {}, ['-alice'], USAGE],
    [
      'a folder without a database',
      { DATA_DIR: cwd },
      ['alice'],
      /^DATA_DIR: there is no database in [^\n]+\n$/
    ],
    ['a running service', running, ['alice'], /^DATA_DIR: [^\n]+ is in use by process [^\n]+\n$/],
    [
      'no server',
      { DATABASE_URL: 'postgres://u:s3cret@127.0.0.1:1/d' },
      ['alice'],
      /^DATABASE_URL: [^\n]*ECONNREFUSED[^\n]*\n$/
    ]
  ]
  for (const [at, [what, env, args, line]] of cases.entries()) {
    // Both commands share this code, so one case is enough for the second.
    for (const script of at === 0 ? ['user-export', 'user-delete'] : ['user-export']) {
      const { code, out, err } = await runScript(cwd, script, env, args)
      t.strictSame({ code, out }, { code: 1, out: '' }, `${what}: ${script}`)
      t.match(err, line)
      t.notMatch(err, 's3cret')
    }
  }
  t.test('.env is read, and an unknown user has no tasks', async (t) => {
    writeFileSync(join(cwd, '.env'), `DATA_DIR=${(await databaseEnv(t, 'embedded')).DATA_DIR}\n`)
    t.strictSame(await runScript(cwd, 'user-export', {}, ['alice']), {
      code: 0,
      out: '[]\n',
      err: '0 tasks of "alice"\n'
    })
  })
})

const exported = (t: Test, env: Record<string, string>, ...args: string[]) =>
  runScript(emptyFolder(t), 'user-export', env, args)

/** Starts the API on a database, uses it, and stops it. */
async function used<T>(
  t: Test,
  kind: (typeof KINDS)[number],
  env: Record<string, string>,
  use: (client: (user: string) => ReturnType<typeof clientOf>) => Promise<T>
): Promise<T> {
  const app = await startApp(t, kind, env)
  const result = await use((user) => clientOf(app, user))
  await app.close()
  return result
}
