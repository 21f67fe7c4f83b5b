import { cpus } from 'node:os'
import type { Outcome } from './outcome.js'
import type { Result, Wrong } from './run-faults.js'
import { FAULT_KINDS } from './schedule.js'

const STATUSES = ['200', '201', '204', '404', '412', '503', 'none']

/** Kinds of what can be wrong that the totals name even when there is none. */
const TOTALS: [what: string, kinds: string[]][] = [
  ['lost', ['lost']],
  ['duplicated or invented', ['duplicated', 'invented']],
  ['out of order', ['disordered']],
  ['two winners of one version', ['two winners']],
  ['not linearizable', ['not linearizable']],
  ['late, undocumented or missing answers', ['answer']],
  ['slow recoveries', ['slow recovery']],
  ['connections left behind', ['too many connections']],
  ['ends of the process that nobody asked for, or output that only bugs cause', ['process']],
  ['not checked', ['not checked']]
]

/** A fault in one line. */
export function lineOf({ fault, began, ended, statuses, longest, recovery }: Outcome): string {
  const where = fault.replicas.length === 1 ? `replica ${fault.replicas[0]}` : 'all'
  const counts = Object.entries(statuses).map(([status, count]) => `${status}: ${count}`)
  return `${fault.kind} (${where}, ${seconds(ended - began)}): ${counts.join(', ')}; longest ${seconds(longest)}, recovered after ${seconds(recovery)}`
}

/** Everything about a run as Markdown. */
export function render(result: Result, embedded: Result, kills: number): string {
  const { outcomes, seed } = result
  const wrong = [...result.wrong, ...embedded.wrong]
  const other = outcomes
    .flatMap(({ statuses }) => Object.keys(statuses))
    .filter((status) => !STATUSES.includes(status))
  const columns = [...STATUSES, ...new Set(other)]
  const rows = FAULT_KINDS.flatMap((kind) => {
    const own = outcomes.filter(({ fault }) => fault.kind === kind)
    if (own.length === 0) return []
    const counts = columns.map((status) => own.reduce((sum, one) => sum + (one.statuses[status] ?? 0), 0))
    const recoveries = own.map(({ recovery }) => recovery).sort((a, b) => a - b)
    const longest = Math.max(...own.map((one) => one.longest))
    const median = recoveries[Math.floor((recoveries.length - 1) / 2)] as number
    return [
      [kind, own.length, ...counts, seconds(longest), seconds(median), seconds(recoveries.at(-1) as number)]
    ]
  })
  return [
    table(['fault', 'count', ...columns, 'longest answer', 'recovery, median', 'max'], rows),
    table(
      ['', `PostgreSQL, ${outcomes.length} faults`, `embedded, ${kills} × kill -9`],
      [
        ['acknowledged writes', result.acknowledged, embedded.acknowledged],
        ['writes of which the client cannot know', result.indeterminate, embedded.indeterminate],
        ...TOTALS.map(([what, kinds]) => [what, count(result.wrong, kinds), count(embedded.wrong, kinds)])
      ]
    ),
    `Seed ${seed}, Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}.`,
    ...wrong.map(({ kind, text }) => `- ${kind}: ${text}`)
  ].join('\n\n')
}

const count = (wrong: Wrong[], kinds: string[]) => wrong.filter(({ kind }) => kinds.includes(kind)).length

const seconds = (milliseconds: number) => `${(milliseconds / 1000).toFixed(2)} s`

function table(head: string[], rows: (string | number)[][]): string {
  const line = (cells: (string | number)[]) =>
    `| ${cells.map((cell) => (typeof cell === 'number' ? cell.toLocaleString('en') : cell)).join(' | ')} |`
  return [line(head), line(head.map((_, column) => (column === 0 ? '---' : '---:'))), ...rows.map(line)].join(
    '\n'
  )
}
