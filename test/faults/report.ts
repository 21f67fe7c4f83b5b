import { cpus } from 'node:os'
import type { Outcome } from './outcome.js'
import type { Result, Wrong } from './run-faults.js'
import { FAULT_KINDS } from './schedule.js'

const STATUSES = ['200', '201', '204', '404', '412', '503', 'none']

/** Kinds of violations that the totals show even if there are none. */
const TOTALS: [what: string, kinds: string[]][] = [
  ['lost', ['lost']],
  ['duplicated or invented', ['duplicated', 'invented']],
  ['out of order', ['disordered']],
  ['two winners of one version', ['two winners']],
  ['not linearizable', ['not linearizable']],
  ['long lists that were cut short unnoticed', ['long list']],
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

/** The parts of a run as Markdown. */
export function render(results: Result[]): string {
  return [
    ...results.filter(({ outcomes }) => outcomes.length > 0).flatMap(faultTable),
    table(
      ['', ...results.map(({ title }) => title)],
      [
        ['acknowledged writes', ...results.map(({ acknowledged }) => acknowledged)],
        ['writes of which the client cannot know', ...results.map(({ indeterminate }) => indeterminate)],
        ...TOTALS.map(([what, kinds]) => [what, ...results.map(({ wrong }) => count(wrong, kinds))])
      ]
    ),
    `Seed ${results[0]?.seed}, Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}.`,
    ...results.flatMap(({ title, wrong }) => wrong.map(({ kind, text }) => `- ${title}: ${kind}: ${text}`))
  ].join('\n\n')
}

/** The results by kind of fault. */
function faultTable({ title, outcomes, longLists }: Result): string[] {
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
  const lists = Object.entries(longLists).map(([end, times]) => `${times.toLocaleString('en')} ${end}`)
  return [
    `### ${title}`,
    table(['fault', 'count', ...columns, 'longest answer', 'recovery, median', 'max'], rows),
    `Long lists: ${lists.sort().join(', ')}.`
  ]
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
