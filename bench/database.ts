import postgres from 'postgres'
import { openDatabase } from '../db/index.js'
import { migrate } from '../db/migrate.js'
import { startPostgres } from '../test/support/postgres-server.js'

export interface BenchDatabase {
  url: string
  /** The process of the PostgreSQL server; undefined if this machine cannot measure it. */
  pid: number | undefined
  close(): Promise<void>
}

const OWNER = 'tasks_bench'

/**
 * A database with an empty table: on a server of our own, or a new database on the server of DATABASE_URL. Other
 * databases there are never touched. On our own server the owner is no superuser, because row-level policies do not
 * apply to superusers.
 */
export async function openBenchDatabase(): Promise<BenchDatabase> {
  const given = process.env.DATABASE_URL
  const server = given ? undefined : await startPostgres({ fsync: 'on' })
  const admin = postgres(given ?? (server?.url('postgres') as string), { max: 1, onnotice: () => {} })
  const name = `tasks_bench_${process.pid}`
  const url = new URL(given ?? (server?.url(name) as string))
  if (server) {
    await admin`create role ${admin(OWNER)} login`
    await admin`create database ${admin(name)} owner ${admin(OWNER)}`
    url.username = OWNER
  } else {
    await admin`create database ${admin(name)}`
    url.pathname = `/${name}`
  }
  await createTable(url.href)
  return {
    url: url.href,
    pid: server?.process.pid,
    async close() {
      await admin`drop database ${admin(name)} with (force)`
      await admin.end()
      await server?.stop()
    }
  }
}

async function createTable(url: string): Promise<void> {
  const db = await openDatabase({ kind: 'postgres', url })
  try {
    await db.withAdminConnection(migrate)
  } finally {
    await db.close()
  }
}
