import { randomBytes } from 'node:crypto'
import type postgres from 'postgres'
import { issueToken } from '../src/token.js'

const USERS = 10_000
export const TASKS_PER_USER = 20

/** The titles in requests. They have the length of the seed's, so that the size of answers does not change. */
export const CREATED_TITLE = 'Task made by the benchmark'
export const RENAMED_TITLE = 'Task renamed by the benchmark'

/** Every 20th user reads tasks. The users between them create tasks, so that the measured lists do not grow. */
const USER_STEP = 20

export interface User {
  id: string
  number: number
  token: string
  /** Signed with another secret. */
  refusedToken: string
}

export interface Users {
  readers: User[]
  creators: User[]
}

export const JWT_SECRET = randomBytes(32).toString('hex')

const userId = (number: number) => `user-${number}`

/** The first ten digits of every id's time, as a number, before the first task. */
const FIRST_ID = 9_900_000_000

/**
 * The id of a user's task; 0 is the oldest. It has the form of a UUIDv7, and the order of age over all users. So a
 * user's tasks are spread over the table, as when people create one from time to time.
 */
export function taskId(user: number, task: number): string {
  const time = `01${FIRST_ID + task * USERS + user}`
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-000000000000`
}

/** Fills the empty table in one statement. Dead rows are removed here, and not by autovacuum at any time. */
export async function seed(sql: postgres.Sql, users = USERS): Promise<void> {
  await sql`
    insert into tasks (user_id, id, title, description, completed, completed_at, created_at, updated_at)
    select
      'user-' || u,
      ('01' || (${FIRST_ID}::bigint + t * ${USERS}::int + u) || '70008000000000000000')::uuid,
      'Task ' || t || ' that user ' || u || ' wrote down',
      case when t % 2 = 0 then 'Something to keep in mind when the time has come to do it.' end,
      t % 3 = 0,
      case when t % 3 = 0 then at end,
      at,
      at
    from
      generate_series(0, ${TASKS_PER_USER}::int - 1) t,
      generate_series(1, ${users}::int) u,
      lateral (select timestamptz '2025-01-01 00:00Z' + (t * ${USERS}::int + u) * interval '1 second' as at) times
    order by t, u`
  await sql`alter table tasks set (autovacuum_enabled = off)`
  await sql`vacuum (analyze) tasks`
}

/** Removes created tasks and dead rows, so that every server finds the same table. */
export async function tidy(sql: postgres.Sql): Promise<void> {
  await sql`delete from tasks where title = ${CREATED_TITLE}`
  await sql`vacuum (analyze) tasks`
}

/** @param step the distance between two readers */
export async function makeUsers(users = USERS, step = USER_STEP): Promise<Users> {
  const make = async (number: number): Promise<User> => {
    const id = userId(number)
    const [token, refusedToken] = await Promise.all([
      sign(JWT_SECRET, id),
      sign(randomBytes(32).toString('hex'), id)
    ])
    return { id, number, token, refusedToken }
  }
  const every = (offset: number) =>
    Promise.all(Array.from({ length: users / step }, (_, i) => make((i + 1) * step - offset)))
  return { readers: await every(0), creators: await every(step / 2) }
}

const sign = (secret: string, sub: string) =>
  issueToken({ keys: { kind: 'secret', secret }, issuer: undefined, audience: undefined }, sub, '1d')
