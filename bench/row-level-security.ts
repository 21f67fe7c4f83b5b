import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { type Database, openDatabase } from '../db/client.js'
import { migrate } from '../db/migrate.js'
import { LONGEST_ARRAY, taskRepository } from '../db/tasks.js'
import { startPostgres } from '../test/support/postgres-server.js'
import { CREATED_TITLE, seed, TASKS_PER_USER, taskId, tidy, USERS, userId } from './dataset.js'
import { cpuSeconds } from './processes.js'

// What a second guard in the database would cost, for docs/row-level-security.md: the statements of the service as
// they are, and the same behind each candidate, interleaved, on one server. Only statements: no HTTP, no tokens.

type Operation = 'get' | 'list' | 'create'
const OPERATIONS: Operation[] = ['get', 'list', 'create']

/** As many as the service has, and as many requests at once as its own benchmark. */
const CONNECTIONS = 4
const CONCURRENT = 50

const { values: options } = parseArgs({
  options: { rounds: { type: 'string', default: '15' }, seconds: { type: 'string', default: '0.5' } }
})
const ROUNDS = Number(options.rounds)
const MILLISECONDS = Number(options.seconds) * 1000

/** The texts of the service's own statements, as drizzle builds them, in the order in which the repository does. */
const texts: string[] = []
const recorder: Pick<Database, 'prepare' | 'prepareStream'> = {
  prepare(_kind, statement) {
    texts.push(statement.toSQL().sql)
    return async () => []
  },
  // The list again, without its limit.
  prepareStream: () => async function* () {}
}
taskRepository(recorder as Database)
const statementOf = (start: RegExp): string => {
  const found = texts.filter((text) => start.test(text) && !text.includes('on conflict'))
  assert.equal(found.length, 1, `one statement is ${start}`)
  return found[0] as string
}
const STATEMENTS: Record<Operation, string> = {
  get: statementOf(/^select .*"id" = \$2/),
  list: statementOf(/^select .*order by/),
  create: statementOf(/^insert/)
}

const TYPES: Record<Operation, string> = {
  get: 'text, uuid',
  list: 'text, boolean, boolean, bigint',
  create: 'text, uuid, text, text, boolean, boolean'
}

const TASK = `user_id text, id uuid, title text, description text, completed boolean,
  completed_at timestamptz, created_at timestamptz, updated_at timestamptz`

/** A function around each statement, whose parameters are the statement's. @param first what it does before it */
const functions = (prefix: string, security: 'invoker' | 'definer', first = '') =>
  OPERATIONS.map(
    (operation) => `
      create function ${prefix}_${operation}(${TYPES[operation]})
      returns table (${TASK}${operation === 'list' ? '' : ', version integer'})
      language plpgsql security ${security} ${security === 'definer' ? 'set search_path from current' : ''} as $$
      #variable_conflict use_column
      begin ${first} return query ${STATEMENTS[operation]}; end $$;
      revoke execute on function ${prefix}_${operation} from public;`
  ).join('')

const calls = (prefix: string): Record<Operation, string> => ({
  get: `select * from ${prefix}_get($1, $2)`,
  list: `select * from ${prefix}_list($1, $2, $3, $4)`,
  create: `select * from ${prefix}_create($1, $2, $3, $4, $5, $6)`
})

const CONTEXT = `with context as materialized (select set_config('app.user', $1::text, true) as "user")`

/** The context set by the statement itself, in the form of it that returns the right rows: the user is read from it. */
const inStatement: Record<Operation, string> = {
  get: `${CONTEXT} ${STATEMENTS.get
    .replace('from "tasks"', 'from context, "tasks"')
    .replace('"user_id" = $1', '"user_id" = context."user"')}`,
  list: `${CONTEXT} ${STATEMENTS.list
    .replace('from "tasks"', 'from context, "tasks"')
    .replace('"user_id" = $1', '"user_id" = context."user"')}`,
  // A row is made before it is checked.
  create: STATEMENTS.create.replace('values ($1,', `values (set_config('app.user', $1::text, true),`)
}

interface Candidate {
  name: string
  /** The role it connects as, which is also its schema: the same table in each, so none has the rules of another. */
  role: string
  statements: Record<Operation, string>
  /** SQL run by the owner, in the schema. */
  rules: string
  transaction?: boolean
  connections?: number
}

const TABLE_RIGHTS = 'select, insert, update, delete'
const POLICY = `alter table tasks enable row level security;
  create policy own on tasks using (user_id = current_setting('app.user', true));`

const candidates: Candidate[] = [
  { name: 'as now', role: 'plain', statements: STATEMENTS, rules: `grant ${TABLE_RIGHTS} on tasks to plain` },
  {
    name: 'policy, context set in the statement',
    role: 'policy',
    statements: inStatement,
    rules: `${POLICY} grant ${TABLE_RIGHTS} on tasks to policy`
  },
  {
    name: 'policy, context set in a function',
    role: 'invoked',
    statements: calls('invoked'),
    rules: `${POLICY} grant ${TABLE_RIGHTS} on tasks to invoked;
      ${functions('invoked', 'invoker', "perform set_config('app.user', $1, true);")}
      grant execute on all functions in schema invoked to invoked`
  },
  {
    name: 'functions of the owner, no rights on the table',
    role: 'defined',
    statements: calls('defined'),
    rules: `${functions('defined', 'definer')} grant execute on all functions in schema defined to defined`
  },
  ...[CONNECTIONS, 10].map((connections) => ({
    name: `policy, a transaction for each request, ${connections} connections`,
    role: `begun${connections}`,
    statements: STATEMENTS,
    rules: `${POLICY} grant ${TABLE_RIGHTS} on tasks to begun${connections}`,
    transaction: true,
    connections
  }))
]

interface Runner {
  candidate: Candidate
  client: postgres.Sql
  run(operation: Operation, parameters: unknown[]): Promise<Record<string, unknown>[]>
}

function connect(url: string, candidate: Candidate): Runner {
  const { role, statements, transaction, connections = CONNECTIONS } = candidate
  const client = postgres(url.replace('postgres@', `${role}@`), {
    max: connections,
    fetch_types: false,
    onnotice: () => {},
    connection: { search_path: role }
  })
  const send = (sql: Pick<postgres.Sql, 'unsafe'>, operation: Operation, parameters: unknown[]) =>
    sql.unsafe(statements[operation], parameters as string[], { prepare: true })
  return {
    candidate,
    client,
    run: transaction
      ? async (operation, parameters) => {
          // The two statements go out together; begin and commit are waited for.
          const [, rows] = await client.begin((sql) => [
            sql.unsafe(`select set_config('app.user', $1, true)`, [parameters[0] as string], {
              prepare: true
            }),
            send(sql, operation, parameters)
          ])
          return rows as unknown as Record<string, unknown>[]
        }
      : async (operation, parameters) => [...(await send(client, operation, parameters))]
  }
}

let created = 0
function parametersOf(operation: Operation): unknown[] {
  const user = randomInt(1, USERS + 1)
  if (operation === 'get') return [userId(user), taskId(user, randomInt(TASKS_PER_USER))]
  if (operation === 'list') return [userId(user), null, null, LONGEST_ARRAY + 1]
  const id = `02${(++created).toString(16).padStart(10, '0')}`
  // Users of their own, so that the lists which are measured do not grow.
  return [
    `creator-${user}`,
    `${id.slice(0, 8)}-${id.slice(8)}-7000-8000-000000000000`,
    CREATED_TITLE,
    null,
    false,
    false
  ]
}

/** Every candidate must give the owner what the service gives now, and what else it lets through is told. */
async function check({ candidate, run, client }: Runner): Promise<string> {
  const [task, list] = [
    await run('get', [userId(7), taskId(7, 3)]),
    await run('list', [userId(7), null, null, LONGEST_ARRAY + 1])
  ]
  assert.equal(task.length, 1, candidate.name)
  assert.equal(list.length, TASKS_PER_USER, candidate.name)
  assert.ok([...task, ...list].every((row) => row.user_id === userId(7)))
  const parameters = parametersOf('create')
  assert.equal((await run('create', parameters))[0]?.user_id, parameters[0])
  assert.equal((await run('get', [userId(8), taskId(7, 3)])).length, 0)

  const forgotten = await client.unsafe('select count(distinct user_id)::int as users from tasks').then(
    ([row]) => `${row?.users} users`,
    (error: Error) => error.message
  )
  const left = await Promise.all(
    Array.from(
      { length: 20 },
      async () =>
        (await client.unsafe(`select coalesce(current_setting('app.user', true), '') as "user"`))[0]?.user
    )
  )
  assert.ok(
    left.every((user) => user === ''),
    `${candidate.name} leaves no context on a connection`
  )
  return `a statement that names no user, run by itself: ${forgotten}`
}

/** What the planner makes of a context that is set in the same statement: the reason for its form above. */
async function showOrder({ client }: Runner): Promise<void> {
  const forms = {
    'the user of the parameter, beside the context': `${CONTEXT} select count(*)::int as rows, min(user_id) as "user" from context, tasks where user_id = $1`,
    'the user of the context': `${CONTEXT} select count(*)::int as rows, min(user_id) as "user" from context, tasks where user_id = context."user"`,
    'a forgotten user': `${CONTEXT} select count(*)::int as rows, min(user_id) as "user" from context, tasks`,
    'a forgotten user, the table first': `${CONTEXT} select count(*)::int as rows, min(user_id) as "user" from tasks left join context on true`
  }
  const session = await client.reserve()
  for (const stale of ['', userId(8)]) {
    await session`select set_config('app.user', ${stale}, false)`
    console.log(`Asked for ${userId(7)}, on a connection whose context is ${stale || 'empty'}:`)
    for (const [name, text] of Object.entries(forms)) {
      const [row] = await session.unsafe(text, [userId(7)], { prepare: true })
      console.log(`  ${name}: ${row?.rows} rows of ${row?.user ?? 'nobody'}`)
    }
  }
  await session`select set_config('app.user', '', false)`
  session.release()
}

interface Measurement {
  rate: number
  /** Microseconds of a request, of this process and of PostgreSQL. */
  client: number
  server: number
}

/** @returns how many requests were answered */
async function drive({ run }: Runner, operation: Operation, milliseconds: number): Promise<number> {
  let count = 0
  const end = performance.now() + milliseconds
  await Promise.all(
    Array.from({ length: CONCURRENT }, async () => {
      while (performance.now() < end) {
        await run(operation, parametersOf(operation))
        count++
      }
    })
  )
  return count
}

async function measure(runner: Runner, operation: Operation, pid: number): Promise<Measurement> {
  await drive(runner, operation, MILLISECONDS / 4)
  const [cpu, postgresCpu, from] = [process.cpuUsage(), cpuSeconds(pid) ?? Number.NaN, performance.now()]
  const count = await drive(runner, operation, MILLISECONDS)
  const seconds = (performance.now() - from) / 1000
  const { user, system } = process.cpuUsage(cpu)
  return {
    rate: count / seconds,
    client: (user + system) / count,
    server: (((cpuSeconds(pid) ?? Number.NaN) - postgresCpu) * 1e6) / count
  }
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] as number

const server = await startPostgres({ fsync: 'on' })
const url = server.url('postgres')
const owner = postgres(url, { max: 1, onnotice: () => {} })
const runners: Runner[] = []
try {
  const db = await openDatabase({ kind: 'postgres', url })
  await db.administer(migrate)
  await db.close()
  for (const { role, rules } of candidates) {
    await owner.unsafe(`create role ${role} login; create schema ${role}; grant usage on schema ${role} to ${role};
      create table ${role}.tasks (like public.tasks including all)`)
    await owner.unsafe(`set search_path to ${role}; ${rules}`)
    await seed(owner)
  }
  for (const candidate of candidates) {
    const runner = connect(url, candidate)
    runners.push(runner)
    console.log(`${candidate.name}: ${await check(runner)}`)
    if (candidate.role === 'policy') await showOrder(runner)
  }

  // What all share is compiled before the first is measured.
  for (const runner of runners)
    for (const operation of OPERATIONS) await drive(runner, operation, MILLISECONDS)

  const measured = new Map<string, Measurement[]>()
  for (let round = 0; round < ROUNDS; round++) {
    for (const operation of OPERATIONS) {
      // Another order each time, so that a machine that drifts hits all alike.
      const turn = runners.map((_, i) => runners[(i + round) % runners.length] as Runner)
      for (const runner of turn) {
        const key = `${operation} ${runner.candidate.name}`
        measured.set(key, [
          ...(measured.get(key) ?? []),
          await measure(runner, operation, server.process.pid as number)
        ])
        if (operation === 'create') {
          await owner.unsafe(`set search_path to ${runner.candidate.role}`)
          await tidy(owner)
        }
      }
    }
  }

  console.log(
    `\nNode ${process.version}, ${CONCURRENT} at once, medians of ${ROUNDS} rounds of ${MILLISECONDS} ms\n`
  )
  console.log(
    '| operation | candidate | CPU here + PostgreSQL | ratio (min–max) | requests/s | ratio (min–max) |'
  )
  console.log('| --- | --- | --- | --- | --- | --- |')
  for (const operation of OPERATIONS) {
    const now = measured.get(`${operation} as now`) as Measurement[]
    for (const { name } of candidates) {
      const all = measured.get(`${operation} ${name}`) as Measurement[]
      const middle = (of: (one: Measurement) => number) => Math.round(median(all.map(of)))
      // Within each round, for the machine is not the same in the next.
      const ratio = (of: (one: Measurement) => number) => {
        const ratios = all.map((one, round) => of(one) / of(now[round] as Measurement))
        const [low, high] = [Math.min(...ratios), Math.max(...ratios)]
        return `${median(ratios).toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`
      }
      console.log(
        `| ${operation} | ${name} | ${middle(({ client }) => client)} + ${middle(({ server }) => server)} µs | ` +
          `${ratio(({ client, server }) => client + server)} | ` +
          `${middle(({ rate }) => rate)} | ${ratio(({ rate }) => rate)} |`
      )
    }
  }
} finally {
  await Promise.all(runners.map(({ client }) => client.end({ timeout: 1 })))
  await owner.end({ timeout: 1 })
  await server.stop()
}
