import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { EMBEDDED, SERVER } from './state.js'

// tap runs this once before the tests: it prepares what they share. A process of its own keeps the PostgreSQL server,
// because that has to outlive this one, and has to end when the test run ends, in whatever way.
mkdirSync(dirname(SERVER), { recursive: true })
const keeper = spawn(
  process.execPath,
  [fileURLToPath(new URL('keeper.js', import.meta.url)), String(process.ppid), SERVER],
  { detached: true, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }
)
const started = new Promise<void>((resolve, reject) => {
  keeper.once('message', () => resolve())
  keeper.once('exit', () => reject(new Error('the PostgreSQL server for the tests did not start')))
})
if (!existsSync(EMBEDDED)) await makeEmbedded()
await started
keeper.disconnect()
keeper.unref()

/** Another run may do the same at this moment: the folder gets its name when it is complete. */
async function makeEmbedded(): Promise<void> {
  const { openMigrated } = await import('../../db/migrate.js')
  const draft = `${EMBEDDED}.${process.pid}`
  const embedded = await openMigrated({ kind: 'embedded', directory: draft })
  await embedded.close()
  try {
    renameSync(draft, EMBEDDED)
  } catch (error) {
    if (!existsSync(EMBEDDED)) throw error
    rmSync(draft, { recursive: true })
  }
}
