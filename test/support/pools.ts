import { DatabaseUnavailable } from '../../db/errors.js'
import { type ConnectionEvents, openClient } from '../../db/postgres/driver.js'
import { Pace } from '../../db/postgres/durations.js'
import { Pool } from '../../db/postgres/pool.js'
import { type DatabaseAddress, parseDatabaseUrl } from '../../db/postgres/url.js'
import { sqlClient } from './databases.js'
import { until } from './process.js'
import type { Test } from './tap.js'

export const NEVER_ENDS = { text: 'select pg_sleep(600)', parameters: [] }

/** Returns a function that opens a connection to this database. */
export function opener(url: string) {
  const target = parseDatabaseUrl(url)
  return (events?: ConnectionEvents) => openClient(target, target.addresses[0] as DatabaseAddress, events)
}

/** A pool of up to `max` connections to this database. It ends with the test. */
export function openPool(t: Test, url: string, max: number): Pool {
  const pool = new Pool(opener(url), max)
  t.teardown(() => pool.end(100))
  return pool
}

/** The duration of a statement that the pool never measures by the server's clock. */
export function unmeasured(): Pace {
  const pace = new Pace()
  pace.startsMeasuring(Number.POSITIVE_INFINITY)
  return pace
}

/**
 * Lets a statement pass its deadline. Ten minutes long, the pool then takes the cancellation of a later one for a late
 * cancel request.
 */
export async function timeOut(t: Test, pool: Pool): Promise<void> {
  const now = performance.now() + 600_000
  const late = pool.read(NEVER_ENDS, unmeasured(), now, now)
  late.catch(() => {})
  await until(() => pool.sent === 1)
  pool.tick(now)
  await t.rejects(late, DatabaseUnavailable)
  await until(() => pool.sent === 0)
}

/**
 * Makes a statement that hangs the first time, and returns 7 in its column n the next times. The returned function cancels
 * it while it hangs, like a late cancel request for the statement before it.
 */
export async function hangingStatement(t: Test, url: string) {
  const observer = sqlClient(t, url)
  await observer`create sequence runs`
  // Behind six rows.
  const text = `
    select n from generate_series(1, 7) n
    where n < 7 or pg_sleep(600 * (nextval('runs') = 1)::int) is not null and n >= $1::int`
  const cancel = () =>
    until(async () => {
      const cancelled = await observer`
        select pg_cancel_backend(pid) from pg_stat_activity
        where datname = current_database() and wait_event = 'PgSleep'`
      return cancelled.length > 0
    })
  return { text, parameters: [1], cancel }
}
