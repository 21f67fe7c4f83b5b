import { readdirSync, readFileSync } from 'node:fs'

/** CPU time of each process so far, in nanoseconds. */
export type CpuTimes = ReadonlyMap<number, number>

/** Measures a process and its descendants. Returns undefined except on Linux. */
export function cpuTimes(root: number): CpuTimes | undefined {
  const times = new Map<number, number>()
  for (const pid of tree(root)) {
    const threads = list(`/proc/${pid}/task`)
    const used = threads.map((thread) => Number(read(`/proc/${pid}/task/${thread}/schedstat`).split(' ')[0]))
    times.set(
      pid,
      used.reduce((sum, nanoseconds) => sum + nanoseconds, 0)
    )
  }
  return times.size === 0 ? undefined : times
}

/** CPU time between the two, in seconds, without processes that ended between them. */
export function cpuSeconds(before: CpuTimes | undefined, after: CpuTimes | undefined): number | undefined {
  if (before === undefined || after === undefined) return undefined
  let nanoseconds = 0
  for (const [pid, used] of after) nanoseconds += used - (before.get(pid) ?? 0)
  return nanoseconds / 1e9
}

/** The sum of the largest resident memory of a process and of its descendants, in MiB; undefined except on Linux. */
export function peakMemory(root: number): number | undefined {
  const pids = tree(root)
  if (pids.length === 0) return undefined
  let kibibytes = 0
  for (const pid of pids) {
    kibibytes += Number(/^VmHWM:\s+(\d+) kB/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0)
  }
  return kibibytes / 1024
}

/** A process and its descendants. */
function tree(root: number): number[] {
  const parents = list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid): [number, number] => {
      const stat = read(`/proc/${pid}/stat`)
      // The name is in parentheses and may contain spaces. After it: state, parent, …
      return [Number(pid), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])]
    })
  const pids = parents.some(([pid]) => pid === root) ? [root] : []
  for (const pid of pids) pids.push(...parents.filter(([, parent]) => parent === pid).map(([child]) => child))
  return pids
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    // The process has ended, or this is not Linux.
    return []
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    // It has ended since the listing.
    return ''
  }
}
