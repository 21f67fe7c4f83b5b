import postgres from 'postgres'
import { openMigrated } from '../../db/migrate.js'
import { startPostgres } from './postgres-server.js'
import type { Prepared } from './prepared.js'

const MIGRATED = 'migrated'

// Keeps a PostgreSQL server until the process that forked this one ends, in whatever way.
process.on('SIGINT', () => {
  // Ctrl-C reaches every process of a run. The end of the run closes the channel, and that is the moment to clean up.
})
process.once('disconnect', async () => {
  await (await server).stop()
  process.exit()
})
const server = startPostgres()
const { port, authority, url } = await server
const admin = postgres(url('postgres'), { max: 1 })
await admin.unsafe(`create database ${MIGRATED}`)
await admin.end()
const database = await openMigrated({ kind: 'postgres', url: url(MIGRATED) })
await database.close()
process.send?.({ port, authority, migrated: MIGRATED } satisfies Prepared['postgres'])
