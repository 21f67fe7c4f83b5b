import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './root.js'

/**
 * A JSON file with the port of the PostgreSQL server that before.ts starts for one run. All tests of a run are children
 * of the same tap process, so two runs in one folder do not meet.
 */
export const SERVER = join(ROOT, '.tap', 'prepared', String(process.ppid), 'server.json')

const sources = createHash('sha256')
const migrations = readdirSync(join(ROOT, 'db', 'migrations')).filter((name) => name.endsWith('.sql'))
for (const file of ['package-lock.json', ...migrations.map((name) => join('db', 'migrations', name))]) {
  sources.update(readFileSync(join(ROOT, file)))
}

/**
 * The data folder of an embedded database that is migrated and has no tasks, to be copied. Making one takes seconds, so
 * it is kept for later runs until a package or a migration changes.
 */
export const EMBEDDED = join(ROOT, 'dist-test', `embedded-${sources.digest('hex').slice(0, 8)}`)
