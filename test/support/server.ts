import { startPostgres } from './postgres-server.js'

// Keeps a PostgreSQL server until the process that forked this one ends, in whatever way.
process.on('SIGINT', () => {
  // Ctrl-C reaches every process of a run. The end of the run closes the channel, and that is the moment to clean up.
})
process.once('disconnect', async () => {
  await (await server).stop()
  process.exit()
})
const server = startPostgres()
const { port, authority } = await server
process.send?.({ port, authority })
