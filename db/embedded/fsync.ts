import { closeSync, fsyncSync, openSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { NodeFS } from '@electric-sql/pglite/nodefs'

/** PGlite's parameters, but with fsync on. PostgreSQL's default, fdatasync, does nothing in PGlite. */
export const START_PARAMS_WITH_FSYNC = [
  ...PGlite.defaultStartParams.filter((name) => name !== '-F'),
  '-c',
  'wal_sync_method=fsync'
]

/** Emscripten's access to the host's files. Its types lack this. */
interface HostFiles {
  stream_ops: { fsync?(stream: { nfd: number }): number }
}

type Init = NodeFS['init']

/** A folder on the host with a working fsync: PGlite's own does nothing. */
export class FsyncedNodeFS extends NodeFS {
  /**
   * The error of a failed fsync, after which the content of the disk is unknown, or a PANIC. PostgreSQL would restart and
   * recover, which PGlite cannot, so no further statement may run.
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

/** Calls fsync on every file and folder: PGlite does not when it creates a database. */
export function fsyncTree(directory: string): void {
  sync(directory)
  for (const path of readdirSync(directory, { recursive: true, encoding: 'utf8' }))
    sync(join(directory, path))
}

function sync(path: string): void {
  const file = openSync(path, 'r')
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}
