import { randomUUID } from 'node:crypto'
import { linkSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { StartError } from '../errors.js'

interface Holder {
  id: string
  pid: number
  host: string
  /** Start time of the process, on Linux. A process id can be reused, but not together with its start time. */
  began: string | undefined
}

/**
 * Locks a data folder. PGlite has no lock: two processes on one folder both acknowledge writes and lose them.
 *
 * The lock is a file with the holder's process id, like PostgreSQL's postmaster.pid. If that process is dead, the lock is
 * free, so a killed process needs no cleaning up.
 *
 * A process takes over the lock of a dead holder by creating the file with the next number, `lock-2` after `lock-1`. Only
 * one process can create it. The newest file is valid and is never removed, so no slow process can reuse its number.
 *
 * @returns a function that releases the lock
 * @throws StartError if a running process holds the lock
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
      // If there is a newer file, this number was free only because another process has removed it since `last` was read.
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

/** Creates `to` atomically, with the content of `from`. Returns false if `to` exists. */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Returns undefined if the file is missing, empty or damaged. */
function read(file: string): Holder | undefined {
  try {
    const holder = JSON.parse(readFileSync(file, 'utf8'))
    return typeof holder.host === 'string' ? holder : undefined
  } catch {
    return undefined
  }
}

function lives({ pid, host, began: then }: Holder): boolean {
  // The processes of another machine or container are not visible here, so its lock counts.
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
    // The process name is in parentheses and may contain spaces. The start time is the 20th field after it.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch {
    return undefined
  }
}
