import { existsSync, mkdirSync } from 'node:fs'
import { types } from '@electric-sql/pglite'
import { drizzle } from 'drizzle-orm/pglite'
import type { Driver, Statement } from '../driver.js'
import { DatabaseUnavailable, StartError } from '../errors.js'
import { isOutage } from '../sqlstate.js'
import { toTimestamp } from '../timestamp.js'
import { lockDirectory } from './directory-lock.js'
import { FsyncedNodeFS, fsyncTree, START_PARAMS_WITH_FSYNC } from './fsync.js'
import { StoppingPGlite } from './stopping-pglite.js'

const BATCH_ROWS = 500

/**
 * Opens PGlite in a folder. It runs one statement after the other on the main thread, so there is nothing to cancel. A
 * streamed result is completely in memory before its first row is returned.
 *
 * @param mustExist true refuses a folder without a database
 * @throws StartError if the folder cannot be used
 */
export async function openEmbedded(directory: string, mustExist = false): Promise<Driver> {
  let release = () => {}
  if (mustExist && !existsSync(`${directory}/pgdata`)) {
    throw new StartError(`DATA_DIR: there is no database in ${directory}`)
  }
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    release = lockDirectory(directory)
    const isNew = !existsSync(`${directory}/pgdata`)
    const folder = new FsyncedNodeFS(`${directory}/pgdata`)
    const client = new StoppingPGlite(folder, {
      startParams: START_PARAMS_WITH_FSYNC,
      parsers: { [types.TIMESTAMPTZ]: toTimestamp }
    })
    await client.waitReady
    if (isNew) fsyncTree(directory)
    await client.query("set timezone = 'UTC'")

    const query = async (text: string, parameters: unknown[]) => {
      const { rows } = await client.query(text, parameters)
      // PGlite may report success although fsync has failed.
      if (folder.failure !== undefined) throw new DatabaseUnavailable('connection', { cause: folder.failure })
      return rows
    }
    const pending = new Set<{ until: number; reject: (reason: Error) => void }>()
    const run = ({ text, parameters }: Statement, until: number) =>
      new Promise<unknown[]>((resolve, reject) => {
        const entry = { until, reject }
        pending.add(entry)
        query(text, parameters)
          .then(resolve, (error) =>
            reject(isOutage(error) ? new DatabaseUnavailable('connection', { cause: error }) : error)
          )
          .finally(() => pending.delete(entry))
      })
    return {
      read: (statement, _pace, _now, until) => run(statement, until),
      write: (statement, _target, until) => run(statement, until),
      pending: () => pending.size,
      figures: () => {
        const busy = Math.min(1, pending.size)
        const connections = { idle: 1 - busy, busy, opening: 0 }
        return { connections, maxConnections: 1, waiting: 0, sent: pending.size }
      },
      tick(now) {
        for (const { until, reject } of pending) if (now >= until) reject(new DatabaseUnavailable('timeout'))
      },
      async *stream(text, parameters) {
        const rows = await query(text, parameters)
        for (let at = 0; at < rows.length; at += BATCH_ROWS) yield rows.slice(at, at + BATCH_ROWS)
      },
      withAdminConnection: (work) => work(drizzle(client)),
      async close() {
        if (folder.failure === undefined) await client.close()
        for (const { reject } of pending) reject(new DatabaseUnavailable('closing'))
        release()
      }
    }
  } catch (error) {
    release()
    if (error instanceof StartError) throw error
    throw new StartError(`DATA_DIR: ${directory} cannot be used: ${(error as Error).message}`)
  }
}
