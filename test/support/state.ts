import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './root.js'

/**
 * A JSON file with the port of the PostgreSQL server that before.ts starts for one run. All tests of a run are children
 * of the same tap process, so two runs in one folder do not meet.
 */
export const SERVER = join(ROOT, '.tap', 'prepared', String(process.ppid), 'server.json')

const lock = createHash('sha256').update(readFileSync(join(ROOT, 'package-lock.json')))

/**
 * The data folder of a new embedded database, to be copied. Making one takes seconds, so it is kept for later runs until
 * a package changes.
 */
export const EMBEDDED = join(ROOT, 'dist-test', `embedded-${lock.digest('hex').slice(0, 8)}`)
