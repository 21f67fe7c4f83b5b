import { randomUUID } from 'node:crypto'
import { linkSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { StartError } from '../errors.js'

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
 * A lock is a file that names its holder, as PostgreSQL's own postmaster.pid: a holder that no longer lives does not
 * hold it, so a killed process leaves nothing to clean up. To take a lock from a dead holder is to make the next file,
 * `lock-2` after `lock-1`, which only one process can; the newest file counts, and is never removed, so no slow process
 * can take a number that was used before.
 *
 * @returns release, to be called when the folder is no longer used
 * @throws StartError when a living process holds the folder
 */
export function lockDirectory(directory: string): () => void {
  const me: Holder = { id: randomUUID(), pid: process.pid, host: hostname(), began: began(process.pid) }
  const fileOf = (number: number) => join(directory, `lock-${number}`)
  const draft = join(directory, `lock.${me.id}`)
  writeFileSync(draft, JSON.stringify(me))
  try {
    for (;;) {
      const last = Math.max(0, ...numbersIn(directory))
      const holder = read(fileOf(last))
      if (holder && lives(holder)) throw inUse(directory, fileOf(last), holder)
      const mine = fileOf(last + 1)
      if (!linked(draft, mine)) continue
      const others = numbersIn(directory).filter((number) => number !== last + 1)
      // A newer one means that this number was only free because its holder had tidied up since we looked.
      if (others.every((number) => number <= last)) {
        for (const number of others) rmSync(fileOf(number), { force: true })
        return () => {
          if (read(mine)?.id === me.id) truncateSync(mine)
        }
      }
    }
  } finally {
    rmSync(draft, { force: true })
  }
}

const numbersIn = (directory: string) =>
  readdirSync(directory).flatMap((name) => (/^lock-[1-9]\d{0,9}$/.test(name) ? [Number(name.slice(5))] : []))

const inUse = (directory: string, file: string, { pid, host }: Holder) =>
  new StartError(
    `DATA_DIR: ${directory} is in use by process ${pid} on ${host}. Stop it, choose another DATA_DIR, or set ` +
      `DATABASE_URL to share one database. If that process no longer runs, as when a container was replaced, empty the ` +
      `file ${file}.`
  )

/** Gives `from` the second name `to`, complete from the first moment; false when that name is taken. */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
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
