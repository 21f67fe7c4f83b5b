import type { PGliteOptions } from '@electric-sql/pglite'
import { DatabaseUnavailable } from '../errors.js'
import { PGliteWithBomFix } from './byte-order-mark.js'
import type { FsyncedNodeFS } from './fsync.js'

type Execute = PGliteWithBomFix['execProtocolStream']

/**
 * Sends PostgreSQL no message after a failure, for instance a PANIC because there is no space for the log of changes. The next
 * message would run for ever, and hang the whole process. Statements that wait in PGlite's queue are refused too.
 */
export class StoppingPGlite extends PGliteWithBomFix {
  readonly #folder: FsyncedNodeFS

  constructor(folder: FsyncedNodeFS, options: PGliteOptions) {
    super({ ...options, fs: folder })
    this.#folder = folder
  }

  /** @throws DatabaseUnavailable after a failure */
  override async execProtocolStream(...parameters: Parameters<Execute>): ReturnType<Execute> {
    const folder = this.#folder
    if (folder.failure !== undefined) throw new DatabaseUnavailable('connection', { cause: folder.failure })
    try {
      return await super.execProtocolStream(...parameters)
    } catch (error) {
      if (Object(error).severity === 'PANIC') folder.failure = error
      throw error
    }
  }
}
