import { join } from 'node:path'
import { ROOT } from './root.js'

/**
 * What before.ts prepares for the tests of one run, which are all children of the same tap process: so that two runs
 * in one folder do not meet.
 */
const prepared = (name: string) => join(ROOT, '.tap/prepared', String(process.ppid), name)

/** A JSON file with the port of the PostgreSQL server, and with the file of its certificate authority. */
export const SERVER = prepared('server.json')
/** The data folder of a new embedded database, to be copied: making one takes seconds. */
export const EMBEDDED = prepared('embedded')
