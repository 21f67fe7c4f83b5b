import { closeSync, fsyncSync, openSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { NodeFS } from '@electric-sql/pglite/nodefs'

/** As PGlite starts PostgreSQL, but with fsync on. Not with fdatasync, PostgreSQL's default, which does nothing here. */
export const START_PARAMS_WITH_FSYNC = [
  ...PGlite.defaultStartParams.filter((name) => name !== '-F'),
  '-c',
  'wal_sync_method=fsync'
]

/** What Emscripten has of the files of the host, and its types do not. */
interface HostFiles {
  stream_ops: { fsync?(stream: { nfd: number }): number }
}

type Init = NodeFS['init']

/** A folder on the host in which PGlite's fsync is the system's: its own does nothing. */
export class FsyncedNodeFS extends NodeFS {
  /**
   * Why the system could not put something on the disk. What is on it is not known from then on, and PostgreSQL, which
   * would stop and start again, cannot stop in here: so nothing may be asked of it any more.
   */
  failure: unknown

  override async init(...parameters: Parameters<Init>): ReturnType<Init> {
    const made = await super.init(...parameters)
    const { preRun = [] } = made.emscriptenOpts
    preRun.unshift((module: object) => {
      const { NODEFS } = module as { NODEFS: HostFiles }
      NODEFS.stream_ops.fsync = ({ nfd }) => {
        try {
          fsyncSync(nfd)
        } catch (error) {
          this.failure = error
          throw error
        }
        return 0
      }
    })
    return made
  }
}

/** Puts a folder and all that is in it on the disk: what makes a new database does not. */
export function fsyncTree(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name)
    if (entry.isDirectory()) fsyncTree(path)
    else sync(path)
  }
  sync(directory)
}

function sync(path: string): void {
  const file = openSync(path, 'r')
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}
