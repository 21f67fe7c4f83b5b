import { execFile, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import {
  ACTIVE_USERS,
  CREATED_TITLE,
  FIRST_ID,
  RENAMED_TITLE,
  TASKS_PER_USER,
  USER_STEP,
  USERS
} from './dataset.js'
import type { Load } from './load.js'
import { MIX, type OperationName } from './operations.js'

export const PGBENCH = 'pgbench'
export const PGBENCH_LABEL = 'pgbench -M prepared, SQL only'

/**
 * This sample is enough for percentiles. A log line for each of tens of thousands of transactions in a second would
 * be too much.
 */
const SAMPLED = 0.1

const USER = `\\set user ${USER_STEP} * random(1, ${ACTIVE_USERS})`
const TASK = `${USER}
\\set id ${FIRST_ID} + ${USERS} * random(0, ${TASKS_PER_USER - 1}) + :user`
const OWN_TASK = `user_id = 'user-' || :user and id = ('01' || :id || '70008000000000000000')::uuid`
const COLUMNS = 'user_id, id, title, description, completed, completed_at, created_at, updated_at'

/** The service's statements. pgbench chooses the user and the task. */
const SCRIPTS: Partial<Record<OperationName, string>> = {
  get: `${TASK}
select ${COLUMNS} from tasks where ${OWN_TASK};`,
  list: `${USER}
select ${COLUMNS} from tasks where user_id = 'user-' || :user order by id desc;`,
  create: `${USER}
insert into tasks (user_id, id, title, description, completed)
values ('user-' || (:user - ${USER_STEP / 2}), gen_random_uuid(), '${CREATED_TITLE}', 'It is removed when the measurement is over.', false)
returning ${COLUMNS};`,
  update: `${TASK}
\\set number random(0, 999)
update tasks set title = '${RENAMED_TITLE} ' || :number, completed = :number % 2 = 0,
completed_at = case when :number % 2 = 0 then coalesce(completed_at, now()) end, updated_at = now()
where ${OWN_TASK} returning ${COLUMNS};`,
  toggle: `${TASK}
update tasks set completed = not completed, completed_at = case when not completed then now() end, updated_at = now()
where ${OWN_TASK} returning ${COLUMNS};`
}

/** The pgbench in PATH, or Debian's newest. */
export function findPgbench(): string | undefined {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const candidates = ['pgbench', ...versions.map((version) => join(debian, version, 'bin', 'pgbench'))]
  return candidates.find((program) => spawnSync(program, ['--version']).status === 0)
}

export const canPgbench = (operation: OperationName) => operation === 'mix' || operation in SCRIPTS

/**
 * Runs the operation's statement as fast as the database can.
 *
 * @throws Error if a statement fails
 */
export async function pgbench(
  program: string,
  databaseUrl: string,
  operation: OperationName,
  connections: number,
  seconds: number,
  signal: AbortSignal
): Promise<Load> {
  const directory = mkdtempSync(join(tmpdir(), 'tasks-pgbench-'))
  try {
    const shares = operation === 'mix' ? MIX : { [operation]: 1 }
    const files = Object.entries(shares).flatMap(([name, share]) => {
      const file = join(directory, `${name}.sql`)
      writeFileSync(file, `${SCRIPTS[name as OperationName]}\n`)
      return ['-f', `${file}@${share}`]
    })
    const threads = Math.min(connections, cpus().length)
    const options = [
      ...[
        '-n',
        '-M',
        'prepared',
        '-c',
        String(connections),
        '-j',
        String(threads),
        '-T',
        String(Math.ceil(seconds))
      ],
      ...['--log', '--log-prefix', join(directory, 'log'), '--sampling-rate', String(SAMPLED)],
      ...files,
      databaseUrl
    ]
    const { stdout } = await promisify(execFile)(program, options, { signal })
    const number = (pattern: RegExp) => Number(pattern.exec(stdout)?.[1])
    const rate = number(/^tps = ([\d.]+) \(without initial/m)
    const failed = number(/^number of failed transactions: (\d+)/m)
    if (!(rate > 0) || failed > 0) throw new Error(`pgbench ${operation}: not an answer to trust:\n${stdout}`)
    return {
      count: number(/^number of transactions actually processed: (\d+)/m),
      rate,
      ...latencies(directory)
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Fields of the log: client, transaction, time in µs, … */
function latencies(directory: string): { p50: number; p99: number } {
  const sorted = readdirSync(directory)
    .filter((file) => file.startsWith('log'))
    .flatMap((file) => readFileSync(join(directory, file), 'utf8').trim().split('\n'))
    .map((line) => Number(line.split(' ')[2]) / 1_000)
    .sort((a, b) => a - b)
  const percentile = (p: number) => sorted[Math.floor(sorted.length * p)] ?? Number.NaN
  return { p50: percentile(0.5), p99: percentile(0.99) }
}
