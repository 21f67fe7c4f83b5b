import { drizzle } from 'drizzle-orm/postgres-js'
import type { Driver } from '../driver.js'
import { StartError } from '../errors.js'
import type { DatabaseObservations } from '../observations.js'
import { openCursors } from './cursor.js'
import { type Client, type ConnectionEvents, openClient } from './driver.js'
import { Pool } from './pool.js'
import { STATEMENT_MS } from './session.js'
import { type DatabaseAddress, type PostgresTarget, parseDatabaseUrl } from './url.js'
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
    async administer(work) {
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

/** Connects to the server that worked last. Of several, one that does not, or takes no writes, is left for the next. */
function connector(target: PostgresTarget): (events?: ConnectionEvents) => Promise<Client> {
  const { addresses } = target
  let current = 0
  return async (events) => {
    let failure: unknown
    for (let tries = 0; tries < addresses.length; tries++) {
      const at = current
      try {
        const client = await openClient(target, addresses[at] as DatabaseAddress, events)
        if (!client.isReadOnly || addresses.length === 1) return client
        client.destroy()
        failure = new Error('none of the servers takes writes')
      } catch (error) {
        failure = error
      }
      // Another attempt may have gone on to the next one meanwhile.
      if (current === at) current = (at + 1) % addresses.length
    }
    throw failure
  }
}
