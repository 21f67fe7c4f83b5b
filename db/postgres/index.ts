import { drizzle } from 'drizzle-orm/postgres-js'
import type { Driver } from '../driver.js'
import { StartError } from '../errors.js'
import type { DatabaseObservations } from '../observations.js'
import { openCursors } from './cursor.js'
import { STATEMENT_MS } from './deadline-session.js'
import { checkPooler } from './driver.js'
import { connector } from './hosts.js'
import { Pool } from './pool.js'
import { withServerSettings } from './server-settings.js'
import { type PostgresTarget, parseDatabaseUrl } from './url.js'
import { WriteBatcher } from './write-batches.js'

/**
 * Opens a PostgreSQL server, directly or through a pooler such as PgBouncer.
 *
 * This folder adds deadlines and limits, which the driver lacks. Without them a request would wait for ever for a dead
 * database, and some failures of the driver would end the process.
 *
 * @param variable name of the variable that has the URL, for errors
 * @param poolMax maximum number of connections for requests, at least 2
 * @throws StartError if the URL cannot be used
 */
export function openPostgres(
  { url, sharedTransactions }: { url: string; sharedTransactions?: boolean },
  variable: string,
  poolMax: number,
  observed: DatabaseObservations
): Driver {
  const target = targetOf(url, variable)
  const connect = connector(target)
  const pool = new Pool(async (events) => withServerSettings(await connect(events)), poolMax, observed)
  const writes = new WriteBatcher(pool, sharedTransactions)
  const cursors = openCursors(pool)

  return {
    read: (statement, pace, now, until) => pool.read(statement, pace, now, until),
    write: (statement, target, until) => writes.run(statement, target, until),
    pending: () => pool.pending + writes.waiting + cursors.waiting,
    figures: () => ({
      connections: pool.connections,
      maxConnections: poolMax,
      waiting: pool.waiting + writes.waiting + cursors.waiting,
      sent: pool.sent
    }),
    tick(now) {
      pool.tick(now)
      writes.tick(now)
    },
    stream: cursors.stream,
    async withAdminConnection(work) {
      // This needs a connection of its own, because drizzle replaces the parsers of its client.
      const client = await connect()
      try {
        await checkPooler(client)
        return await work(drizzle(client.sql))
      } finally {
        await client.end(STATEMENT_MS)
      }
    },
    async close(milliseconds) {
      writes.end()
      await pool.end(milliseconds)
    }
  }
}

function targetOf(url: string, variable: string): PostgresTarget {
  try {
    return parseDatabaseUrl(url)
  } catch (error) {
    throw new StartError(`${variable} cannot be used: ${(error as Error).message}`)
  }
}
