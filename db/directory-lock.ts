import { randomUUID } from 'node:crypto'
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { StartError } from '../src/errors.js'

interface Holder {
  id: string
  pid: number
  host: string
  /** When the process began, where the system tells (Linux): a process id is used again, this pair is not. */
  began: string | undefined
}

/**
 * Takes the lock of a data folder. PGlite has none, and two processes on one folder both acknowledge writes and
 * silently lose them.
 *
 * The lock is a file that names its holder, as PostgreSQL's own postmaster.pid: a holder that no longer lives
 * does not hold it, so a killed process leaves nothing to clean up.
 *
 * @returns release, to be called when the folder is no longer used
 * @throws StartError when a living process holds the folder
 */
export function lockDirectory(directory: string): () => void {
  const file = join(directory, 'lock')
  const me: Holder = { id: randomUUID(), pid: process.pid, host: hostname(), began: began(process.pid) }
  const mine = `${file}.${me.id}`
  writeFileSync(mine, JSON.stringify(me))
  try {
    while (!linked(mine, file)) {
      const holder = read(file)
      if (holder && lives(holder)) throw inUse(directory, holder)
      // Only one process can move a given file away, and it looks at what it got: if another process was faster
      // and this is its fresh lock, it goes back.
      const stale = `${file}.${randomUUID()}`
      if (!renamed(file, stale)) continue
      const moved = read(stale)
      if (moved && lives(moved)) linked(stale, file)
      rmSync(stale, { force: true })
    }
  } finally {
    rmSync(mine, { force: true })
  }
  const holder = read(file)
  if (holder && holder.id !== me.id) throw inUse(directory, holder)
  return () => {
    if (read(file)?.id === me.id) rmSync(file, { force: true })
  }
}

const inUse = (directory: string, { pid, host }: Holder) =>
  new StartError(
    `DATA_DIR: ${directory} is in use by process ${pid} on ${host}. Stop it, choose another DATA_DIR, ` +
      `or set DATABASE_URL to share one database. (If that process is not this service, delete the file "lock" there.)`
  )

/** Gives `from` the second name `to`; false when that name is taken. */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Moves a file; false when it is gone. */
function renamed(from: string, to: string): boolean {
  try {
    renameSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

/** The holder that a lock file names; undefined when there is none, or no such text in it. */
function read(file: string): Holder | undefined {
  try {
    const holder = JSON.parse(readFileSync(file, 'utf8'))
    return typeof holder.host === 'string' ? holder : undefined
  } catch {
    return undefined
  }
}

function lives({ pid, host, began: then }: Holder): boolean {
  // Another machine or container: its processes cannot be seen from here, so it has to be believed.
  if (host !== hostname()) return true
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
  }
  return began(pid) === then
}

function began(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name, in parentheses, may hold spaces; the start time is field 22, the 20th after it.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch {
    return undefined
  }
}
