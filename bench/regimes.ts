import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type postgres from 'postgres'
import type { Users } from './dataset.js'

/** A condition of the database or the network while servers are measured. */
export interface Regime {
  label: string
  /** Delay of the network in each direction, in milliseconds. */
  network?: number
  begin?(sql: postgres.Sql, users: Users): Promise<unknown>
  end?(sql: postgres.Sql): Promise<unknown>
  /** The users of the requests, if not all. */
  users?(users: Users): Users
  /** The users of one slow request in a hundred. The latency of the others is also counted separately. */
  slow?(users: Users): Users
  /** True keeps dead rows until the end. */
  keepsDeadRows?: boolean
}

const DELETED = 20_000

const some =
  (...range: [from: number, to?: number]) =>
  (users: Users) => ({ readers: users.readers.slice(...range), creators: users.creators.slice(...range) })
const fewUsers = some(0, 4)
const slowUsers = some(0, 10)
const quickUsers = some(10)
const idsOf = ({ readers, creators }: Users) => [...readers, ...creators].map(({ id }) => id)

/** Delays each statement in the database, as a cold cache or a busy server would. */
const everyStatement = (milliseconds: number): Regime => ({
  label: `${milliseconds} ms a statement`,
  begin: (sql) => pauseWhere(sql, `(select bench_pause(${milliseconds / 1000}))`),
  end: dropPause
})

const network = (milliseconds: number): Regime => ({
  label: `network, ${milliseconds} ms each way`,
  network: milliseconds
})

/** In the order of measurement. V8 is still compiling during the first ones, and the later ones need the CPU most. */
export const REGIMES = {
  'network-2': network(2),
  'network-10': network(10),
  'commit-5': {
    label: '5 ms a commit',
    begin: (sql) => pauseAtCommit(sql, 5),
    end: (sql) => sql`drop trigger bench_commit on tasks`
  },
  'slow-1-of-100': {
    label: 'one in 100 takes 200 ms',
    users: quickUsers,
    slow: slowUsers,
    begin: (sql, users) =>
      pauseWhere(
        sql,
        `case when user_id = any('{${idsOf(slowUsers(users))}}') then (select bench_pause(0.2)) else true end`
      ),
    end: dropPause
  },
  plain: { label: 'nothing added' },
  'statement-1': everyStatement(1),
  'statement-5': everyStatement(5),
  'statement-20': everyStatement(20),
  // Last, because the table is larger after it.
  'dead-rows': {
    label: `${DELETED.toLocaleString('en')} just deleted`,
    users: fewUsers,
    keepsDeadRows: true,
    begin: (sql, users) => leaveDeadRows(sql, idsOf(fewUsers(users)))
  }
} satisfies Record<string, Regime> as Record<string, Regime>

/**
 * Makes every client's statements sleep, each of them once: PostgreSQL checks the policy twice for a change.
 *
 * @param condition the policy's condition, in which bench_pause sleeps
 */
async function pauseWhere(sql: postgres.Sql, condition: string): Promise<void> {
  const [{ bypasses }] = (await sql`
    select rolsuper or rolbypassrls as bypasses from pg_roles where rolname = current_user`) as unknown as [
    { bypasses: boolean }
  ]
  if (bypasses) {
    throw new Error('row-level policies make statements slow, so DATABASE_URL must name no superuser')
  }
  await sql.unsafe(`
    create or replace function bench_pause(seconds float8) returns boolean language plpgsql as $$
    begin
      if current_setting('bench.paused', true) is distinct from statement_timestamp()::text then
        perform set_config('bench.paused', statement_timestamp()::text, false);
        perform pg_sleep(seconds);
      end if;
      return true;
    end $$;
    create policy bench_all on tasks using (true);
    create policy bench_pause on tasks as restrictive for select using (${condition});
    alter table tasks enable row level security, force row level security`)
}

async function dropPause(sql: postgres.Sql): Promise<void> {
  await sql.unsafe(`
    alter table tasks disable row level security, no force row level security;
    drop policy bench_pause on tasks;
    drop policy bench_all on tasks`)
}

/**
 * Makes commits slow, as a synchronous standby would. The transaction keeps its connection and its locks. Others can
 * commit at the same time, and a transaction of many changes waits once.
 */
async function pauseAtCommit(sql: postgres.Sql, milliseconds: number): Promise<void> {
  await sql.unsafe(`
    create or replace function bench_commit() returns trigger language plpgsql as $$
    begin
      if current_setting('bench.committing', true) is distinct from 'yes' then
        perform set_config('bench.committing', 'yes', true);
        perform pg_sleep(${milliseconds / 1000});
      end if;
      return null;
    end $$;
    create constraint trigger bench_commit after insert or update or delete on tasks
      deferrable initially deferred for each row execute function bench_commit()`)
}

/** Gives each user this many more tasks, newer than the others, and deletes them. */
async function leaveDeadRows(sql: postgres.Sql, users: string[]): Promise<void> {
  await sql`
    insert into tasks (user_id, id, title, completed)
    select u, ('02' || lpad(n::text, 10, '0') || '70008000000000000000')::uuid, 'Task that is deleted', false
    from unnest(${users}::text[]) u, generate_series(1, ${DELETED}::int) n`
  await sql`delete from tasks where title = 'Task that is deleted'`
  // The first statement marks dead entries in the index. It must not be one of the compared servers.
  for (const user of users) {
    await sql`select count(*) from (select * from tasks where user_id = ${user} order by id desc limit 201) list`
  }
}

export interface Network {
  url: string
  setDelay(milliseconds: number): void
  close(): void
}

/** A network to the database, in a process of its own. */
export async function startNetwork(target: string): Promise<Network> {
  const child = fork(join(import.meta.dirname, 'network.ts'), [target], {
    execArgv: ['--import', import.meta.resolve('tsx')]
  })
  const [url] = (await once(child, 'message')) as [string]
  return {
    url,
    setDelay: (milliseconds) => child.send(milliseconds),
    close: () => child.kill()
  }
}
