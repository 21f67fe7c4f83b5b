import postgres from 'postgres'
import { openMigrated } from '../../db/migrate.js'
import { startPostgres } from './postgres-server.js'
import type { Prepared } from './prepared.js'

const MIGRATED = 'migrated'

// Runs a PostgreSQL server until the parent process ends in any way.
process.on('SIGINT', () => {
  // Ctrl-C signals every process of a run. This one must wait for the closed channel and then clean up.
})
process.once('disconnect', async () => {
  await (await server).stop()
  process.exit()
})
// The server has many databases, and lives for minutes.
const server = startPostgres({ autovacuum: 'off' })
const { port, authority, url } = await server
const admin = postgres(url('postgres'), { max: 1 })
await admin.unsafe(`create database ${MIGRATED}`)
await admin.end()
const database = await openMigrated({ kind: 'postgres', url: url(MIGRATED) })
await database.close()
process.send?.({ port, authority, migrated: MIGRATED } satisfies Prepared['postgres'])
