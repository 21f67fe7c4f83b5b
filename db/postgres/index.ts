import { drizzle } from 'drizzle-orm/postgres-js'
import type { Driver } from '../driver.js'
import { StartError } from '../errors.js'
import type { DatabaseObservations } from '../observations.js'
import { openCursors } from './cursor.js'
import { connector } from './hosts.js'
import { Pool } from './pool.js'
import { STATEMENT_MS } from './session.js'
import { type PostgresTarget, parseDatabaseUrl } from './url.js'
import { WriteBatcher } from './write-batches.js'

/**
 * A PostgreSQL server, or what looks like one, such as PgBouncer.
 *
 * Without what is in this folder a request would wait as long as the database does: the driver has neither deadlines nor
 * limits, and some of its failures end the process.
 *
 * @param variable the setting that holds the URL
 * @param poolMax the most connections that requests may use, at least 2
 * @throws StartError when the URL cannot be used
 */
export function openPostgres(
  url: string,
  variable: string,
  poolMax: number,
  observed: DatabaseObservations
): Driver {
  const target = targetOf(url, variable)
  const connect = connector(target)
  const pool = new Pool(connect, poolMax, observed)
  const writes = new WriteBatcher(pool)
  const cursors = openCursors(pool)

  return {
    read: (statement, pace, now, until) => pool.read(statement, pace, now, until),
    write: (statement, target, _now, until) => writes.run(statement, target, until),
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
      // Not a connection of the requests: drizzle replaces the parsers of the client that it is given.
      const client = await connect()
      try {
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
