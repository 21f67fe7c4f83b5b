import { readdirSync, readFileSync } from 'node:fs'

/** /proc counts in these, on every Linux: sysconf(_SC_CLK_TCK). */
const TICKS_PER_SECOND = 100

/**
 * CPU time that a process and its descendants have used so far, in seconds, with those that have ended; undefined where
 * the system does not tell (anything but Linux).
 */
export function cpuSeconds(root: number): number | undefined {
  const all = readProcesses()
  if (!all.has(root)) return undefined
  let ticks = 0
  for (const pid of tree(all, root)) ticks += (all.get(pid) as Process).ticks
  return ticks / TICKS_PER_SECOND
}

/** The largest resident memory that a process and its descendants have had, in MiB, summed; undefined as above. */
export function peakMemory(root: number): number | undefined {
  const all = readProcesses()
  if (!all.has(root)) return undefined
  let kibibytes = 0
  for (const pid of tree(all, root)) {
    kibibytes += Number(/^VmHWM:\s+(\d+) kB/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0)
  }
  return kibibytes / 1024
}

interface Process {
  parent: number
  ticks: number
}

function readProcesses(): Map<number, Process> {
  const all = new Map<number, Process>()
  let names: string[] = []
  try {
    names = readdirSync('/proc')
  } catch {
    // No such folder: not Linux.
  }
  for (const name of names) {
    if (!/^\d+$/.test(name)) continue
    const stat = read(`/proc/${name}/stat`)
    // The name, in parentheses, may hold spaces. After it: state, parent, …, and from field 14 of proc(5) on utime,
    // stime, and the same two of children that ended.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields.length < 15) continue
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
    all.set(Number(name), { parent: Number(fields[1]), ticks })
  }
  return all
}

function tree(all: Map<number, Process>, root: number): number[] {
  const pids = [root]
  for (const pid of pids) {
    for (const [child, { parent }] of all) if (parent === pid) pids.push(child)
  }
  return pids
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    // It ended between the listing and now.
    return ''
  }
}
