import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Client, clientOf, startApp } from '../../support/api.js'
import { emptyDatabase, migratedDatabase, sqlClient } from '../../support/databases.js'
import { hasProgram, PROGRAMS } from '../../support/debian.js'
import { freePort, unprivileged } from '../../support/postgres-server.js'
import { emptyFolder, until } from '../../support/process.js'
import { migrationRefusal } from '../../support/start.js'
import t, { type Test } from '../../support/tap.js'

/** Fewer than the service has connections, so that its statements change between them. */
const SERVERS = 3
const USERS = Array.from({ length: 20 }, (_, n) => `user ${n}`)
/** More than one array holds, so the list is read from a cursor. */
const LONG = 300

/** PgBouncer reads at most 20 kB of one connection before it turns to others. */
const LARGE = { title: 'large', description: '\u{1f600}'.repeat(10_000) }

/** PgBouncer logs this if it passed a server connection on before all of its answers had arrived. */
const LOST_ANSWER = /when not linked|got dirty/

type App = Awaited<ReturnType<typeof startApp>>

/** Calls for every user at the same time. */
const everyone = <T>(app: App, call: (client: Client, user: string) => Promise<T>) =>
  Promise.all(USERS.map(async (user) => call(await clientOf(app, user), user)))

/** Adds tasks to every user. */
const addLongLists = (sql: ReturnType<typeof sqlClient>) => sql`
  insert into tasks (user_id, id, title, completed)
  select user_id, gen_random_uuid(), 'of ' || user_id, false
  from unnest(${USERS}::text[]) user_id, generate_series(1, ${LONG}::int)`

if (hasProgram(t, 'pgbouncer', 'pgbouncer')) {
  t.test('PgBouncer in statement mode is refused', async (t) => {
    const pooler = await startPgBouncer(t, await migratedDatabase(t), 'statement')
    t.match(
      await migrationRefusal({ DATABASE_URL: pooler.url }),
      /^DATABASE_URL: [^\n]*a pooler must be in session mode or transaction mode \([^\n]+\)$/
    )
  })

  t.test('behind PgBouncer in transaction mode', async (t) => {
    const direct = await emptyDatabase(t)
    const sql = sqlClient(t, direct)
    const pooler = await startPgBouncer(t, direct)
    // The migrations go through it too.
    const app = await startApp(t, 'postgres', { DATABASE_URL: pooler.url })

    /** Lets every user do every operation at the same time, and returns each wrong answer. */
    async function faultsOf(app: App): Promise<unknown[]> {
      const faults: unknown[] = []
      await everyone(app, async (client, user) => {
        const call = async (expected: number, ...request: Parameters<Client>) => {
          const answer = await client(...request)
          if (answer.status !== expected) faults.push([...request, answer.status, answer.text])
          for (const task of [answer.json].flat()) {
            if (answer.status < 300 && task && task.user_id !== user)
              throw new Error(`a task of ${task.user_id}`)
          }
          return answer
        }
        const before = (await call(200, 'GET')).json?.length
        const { json } = await call(201, 'POST', '', { title: `of ${user}` }, { 'idempotency-key': 'once' })
        const again = await call(201, 'POST', '', { title: `of ${user}` }, { 'idempotency-key': 'once' })
        if (again.json?.id !== json?.id) faults.push([user, 'was made twice'])
        const kept = (await call(201, 'POST', '', { title: 'to be changed' })).json?.id
        await call(200, 'PATCH', `/${kept}`, { title: `kept by ${user}`, description: null })
        await call(200, 'PATCH', `/${kept}/complete`)
        await call(204, 'DELETE', `/${json?.id}`)
        await call(404, 'GET', `/${json?.id}`)
        const { title, completed } = (await call(200, 'GET', `/${kept}`)).json ?? {}
        if (title !== `kept by ${user}` || !completed) faults.push([user, title, completed])
        const after = (await call(200, 'GET')).json?.length
        if (after !== before + 1) faults.push([user, before, after])
      })
      return faults
    }

    t.test('concurrent users get only their own tasks, with the right status', async (t) => {
      await addLongLists(sql)
      for (let round = 0; round < 5; round++) t.strictSame(await faultsOf(app), [])
      const [row] = await sql`
        select count(*)::int as servers from pg_stat_activity
        where datname = current_database() and application_name = 'tasks-api'`
      t.ok(row?.servers <= SERVERS, `on ${row?.servers} connections`)
      t.notMatch(pooler.log(), /SET DateStyle/, 'no parameter is set again in each transaction')
      t.notMatch(pooler.log(), LOST_ANSWER)
    })

    t.test('nothing is set on its server connections, which other programs may share', async (t) => {
      await sql.unsafe(`
        create function settings() returns trigger language plpgsql as $$ begin
          new.title := current_setting('idle_in_transaction_session_timeout');
          return new;
        end $$;
        create trigger settings before insert on tasks for each row execute function settings()`)
      const titles = await everyone(
        app,
        async (client) => (await client('POST', '', { title: 'x' })).json?.title
      )
      await sql`drop trigger settings on tasks`
      t.strictSame(new Set(titles), new Set(['0']))
    })

    t.test('statements that PgBouncer reads in several parts are answered', async (t) => {
      const wrong = await everyone(app, async (client, user) => {
        const isWriter = USERS.indexOf(user) % 2 === 0
        for (let n = 0; n < 50; n++) {
          const { status } = await (isWriter ? client('POST', '', LARGE) : client('GET', `/${randomUUID()}`))
          if (status !== (isWriter ? 201 : 404)) return status
        }
        return undefined
      })
      t.strictSame(new Set(wrong), new Set([undefined]))
      t.notMatch(pooler.log(), LOST_ANSWER)
      await sql`delete from tasks where title = ${LARGE.title}`
    })

    t.test(
      'each write of a shared transaction gets its own answer, and a refused one fails alone',
      async (t) => {
        // As on a disk, or with a standby: only then do writes share transactions for certain.
        await sql.unsafe(`
        create function slow_commit() returns trigger language plpgsql as $$ begin perform pg_sleep(0.005); return null; end $$;
        create constraint trigger slow_commit after insert on tasks
          deferrable initially deferred for each row execute function slow_commit();
        create function refuse() returns trigger language plpgsql as $$ begin raise check_violation; end $$;
        create trigger refuse before insert on tasks
          for each row when (new.title = 'refused') execute function refuse()`)
        const app = await startApp(t, 'postgres', { DATABASE_URL: pooler.url })
        const create = (title: string, refused?: string) =>
          everyone(app, async (client, user) => {
            const own = user === refused ? 'refused' : title
            const { status, json } = await client('POST', '', { title: own })
            return status === 201 ? json.user_id === user && json.title === own : [status, user]
          })
        const stored = async (title: string) => {
          const [row] = await sql`
          select count(*)::int as tasks, count(distinct user_id)::int as users,
            count(distinct xmin::text)::int as transactions
          from tasks where title = ${title}`
          return row as { tasks: number; users: number; transactions: number }
        }
        let round = 0
        // The service has to find out that commits are slow.
        await until(async () => {
          await create(`${++round} first`)
          return (await stored(`${round} first`)).transactions < USERS.length / 2
        })
        const answers = await create('together', USERS[7])
        await sql`drop trigger slow_commit on tasks`
        t.strictSame(
          answers.filter((answer) => answer !== true),
          [[500, USERS[7]]]
        )
        const others = USERS.length - 1
        t.match(await stored('together'), { tasks: others, users: others })
        t.equal((await stored('refused')).tasks, 0)
      }
    )

    t.test('late statements are cancelled, and later ones get their own answers', async (t) => {
      const other = await startApp(t, 'postgres', { DATABASE_URL: pooler.url })
      const isIdle = async () => {
        const rows = await sql`
          select from pg_stat_activity where datname = current_database()
            and application_name = 'tasks-api' and state <> 'idle'`
        return rows.length === 0
      }
      const holder = await sql.reserve()
      await holder`begin`
      await holder`lock table tasks`
      const client = await clientOf(app, 'late')
      t.equal((await client('POST', '', { title: 'late' })).status, 503)
      await until(isIdle)
      // More than PgBouncer has connections, so most of them wait there.
      const statuses = await everyone(app, async (client) => {
        const answers = await Promise.all([client('POST', '', { title: 'late too' }), client('GET')])
        return answers.map(({ status }) => status)
      })
      t.strictSame(new Set(statuses.flat()), new Set([503]))
      await holder`rollback`
      holder.release()
      await until(isIdle)
      const rows = await sql`select from tasks where title = 'late'`
      t.equal(rows.length, 0)
      for (const service of [other, app]) await until(async () => (await faultsOf(service)).length === 0)
      t.notOk(pooler.hasEnded())
    })

    t.test(
      'tasks that were acknowledged before PgBouncer was killed are there after its restart',
      async (t) => {
        let isBack = false
        const load = everyone(app, async (client, user) => {
          const acknowledged: string[] = []
          for (let n = 0; !isBack; n++) {
            const title = `${n} of ${user}`
            const { status } = await client('POST', '', { title })
            if (status === 201) acknowledged.push(title)
            else if (status !== 503) throw new Error(`${status}`)
          }
          return acknowledged
        })
        const client = await clientOf(app, 'operator')
        await client('POST', '', { title: 'before' })
        await pooler.kill()
        await until(async () => (await client('GET')).status === 503)
        await pooler.start()
        await until(async () => (await client('GET')).status === 200)
        isBack = true
        for (const [n, titles] of (await load).entries()) {
          const rows = await sql`select title from tasks where user_id = ${USERS[n] as string}`
          const stored = new Set(rows.map(({ title }) => title))
          t.ok(titles.length > 0)
          t.strictSame(
            titles.filter((title) => !stored.has(title)),
            []
          )
        }
        await until(async () => (await faultsOf(app)).length === 0)
      }
    )
  })
  t.test('behind PgBouncer, a long list is not sent behind a reading of the clock', async (t) => {
    const direct = await emptyDatabase(t)
    const sql = sqlClient(t, direct)
    // A reading would still be running when its statement has been answered and the list starts.
    await sql.unsafe(`
      create schema slow;
      create sequence slow.readings;
      create function slow.clock_timestamp() returns timestamptz language plpgsql as $$
        begin perform pg_sleep(0.05), nextval('slow.readings'); return pg_catalog.clock_timestamp(); end $$;
      do $$ begin
        execute format('alter database %I set search_path = public, slow, pg_catalog', current_database());
      end $$`)
    const pooler = await startPgBouncer(t, direct)
    const app = await startApp(t, 'postgres', { DATABASE_URL: pooler.url })
    await addLongLists(sql)
    const { status, json } = await (await clientOf(app, 'user 0'))('GET')
    t.equal(status, 200)
    t.equal(json?.length, LONG)
    t.notMatch(pooler.log(), LOST_ANSWER)
    t.match(await sql`select is_called from slow.readings`, [{ is_called: false }])
  })
}

interface PgBouncer {
  /** The URL of the same database through it. */
  url: string
  start(): Promise<void>
  kill(): Promise<void>
  hasEnded(): boolean
  log(): string
}

/** Starts a PgBouncer before a database. It ends with the test. */
async function startPgBouncer(t: Test, url: string, mode = 'transaction'): Promise<PgBouncer> {
  const { port, pathname, username } = new URL(url)
  const folder = emptyFolder(t)
  chmodSync(folder, 0o755)
  const own = await freePort()
  writeFileSync(join(folder, 'users'), `"${username}" ""\n`)
  writeFileSync(
    join(folder, 'pgbouncer.ini'),
    `[databases]
    * = host=127.0.0.1 port=${port}
    [pgbouncer]
    listen_addr = 127.0.0.1
    listen_port = ${own}
    unix_socket_dir =
    auth_type = trust
    auth_file = ${join(folder, 'users')}
    pool_mode = ${mode}
    default_pool_size = ${SERVERS}
    verbose = 1
    `.replaceAll(/^ +/gm, '')
  )
  let child: ChildProcess
  let log = ''
  const pooler: PgBouncer = {
    url: `postgres://${username}@127.0.0.1:${own}${pathname}`,
    async start() {
      child = spawn('pgbouncer', ['pgbouncer.ini'], {
        // It refuses to run as root.
        ...unprivileged(),
        cwd: folder,
        env: { PATH: PROGRAMS },
        stdio: ['ignore', 'ignore', 'pipe']
      })
      log = ''
      child.stderr?.on('data', (chunk) => {
        log += chunk
      })
      await until(() => log.includes('process up') || child.exitCode !== null)
      if (child.exitCode !== null) throw new Error(`PgBouncer did not start:\n${log}`)
    },
    hasEnded: () => child.exitCode !== null,
    log: () => log,
    async kill() {
      const exit = once(child, 'exit')
      if (child.kill('SIGKILL')) await exit
    }
  }
  await pooler.start()
  t.teardown(pooler.kill)
  return pooler
}
