import { rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { startPostgres } from './postgres-server.js'

// Keeps a PostgreSQL server for as long as the process lives whose id is the first argument, and tells where it is in
// the file that is the second.
const owner = Number(process.argv[2])
const file = process.argv[3] as string
const server = await startPostgres()
writeFileSync(file, JSON.stringify({ port: server.port, authority: server.authority }))
process.send?.('ready')
const watch = setInterval(async () => {
  try {
    process.kill(owner, 0)
  } catch {
    clearInterval(watch)
    await server.stop()
    rmSync(dirname(file), { recursive: true, force: true })
  }
}, 200)
