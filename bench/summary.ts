import type { Load } from './load.js'
import { type OperationName, operations } from './operations.js'
import { REGIMES } from './regimes.js'

export interface Case {
  regime: string
  operation: OperationName
  connections: number
}

export interface Measurement extends Load, Case {
  round: number
  server: string
  /** CPU time per request in microseconds, of the server and of PostgreSQL. */
  serverCpu?: number | undefined
  postgresCpu?: number | undefined
  /** The server's largest resident memory since its start, in MiB. */
  memory?: number | undefined
}

interface Spread {
  median: number
  min: number
  max: number
}

/** Figures of which a line has the median over all rounds. */
const MEDIANS = ['p50', 'p99', 'othersP50', 'othersP99', 'serverCpu', 'postgresCpu', 'memory'] as const

/** A server in one case. */
interface Line extends Pick<Measurement, (typeof MEDIANS)[number]> {
  server: string
  label: string
  rate: Spread
  /** Ratio of the rate to the baseline of the same round, so that a drift of the machine between rounds has no effect. */
  ratios: Record<string, Spread | undefined>
  /** The same of the server's CPU time. */
  cpuRatios: Record<string, Spread | undefined>
}

/** All servers in one case. */
export interface Table extends Case {
  lines: Line[]
}

export function summarise(
  measurements: Measurement[],
  baselines: string[],
  labels: ReadonlyMap<string, string>
): Table[] {
  const cases = new Map(measurements.map((one) => [`${one.regime} ${one.operation} ${one.connections}`, one]))
  return [...cases.values()].map(({ regime, operation, connections }) => {
    const group = measurements.filter(
      (one) => one.regime === regime && one.operation === operation && one.connections === connections
    )
    const lines = [...labels].map(([server, label]): Line => {
      const own = group.filter((one) => one.server === server)
      const of = (value: (one: Measurement) => number | undefined) => spread(own.map(value))
      const ratiosOf = (figure: 'rate' | 'serverCpu') => {
        const ratioTo = (baseline: string) =>
          of(({ round, [figure]: value }) => {
            const other = group.find((one) => one.server === baseline && one.round === round)?.[figure]
            return value && other && value / other
          })
        return Object.fromEntries(baselines.map((baseline) => [baseline, ratioTo(baseline)]))
      }
      const medians = Object.fromEntries(
        MEDIANS.map((name) => [name, of((one) => one[name])?.median])
      ) as Pick<Line, (typeof MEDIANS)[number]>
      return {
        server,
        label,
        rate: of(({ rate }) => rate) as Spread,
        ratios: ratiosOf('rate'),
        cpuRatios: ratiosOf('serverCpu'),
        ...medians
      }
    })
    return { regime, operation, connections, lines }
  })
}

function spread(values: (number | undefined)[]): Spread | undefined {
  const sorted = values.filter((value) => value !== undefined).sort((a, b) => a - b)
  const [min] = sorted
  if (min === undefined) return undefined
  const at = (index: number) => sorted[index] as number
  const middle = (sorted.length - 1) / 2
  return {
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    min,
    max: at(sorted.length - 1)
  }
}

/** The content of a file in bench/results. Each server is on a line of its own, with significant digits only. */
export function toJson(run: object, tables: Table[]): string {
  const rounded = (_key: string, value: unknown) =>
    typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value
  const texts = tables.map(({ lines, ...one }) => {
    const head = JSON.stringify(one).slice(0, -1)
    return `    ${head}, "lines": [\n${lines.map((line) => `      ${JSON.stringify(line, rounded)}`).join(',\n')}\n    ]}`
  })
  return `${JSON.stringify(run, null, 2).slice(0, -2)},\n  "tables": [\n${texts.join(',\n')}\n  ]\n}\n`
}

export const whole = (value: number | undefined) =>
  value === undefined ? '–' : Math.round(value).toLocaleString('en')
const milliseconds = (value: number | undefined) =>
  value?.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0) ?? '–'
const ratio = (value: Spread | undefined) =>
  value ? `${value.median.toFixed(2)} (${value.min.toFixed(2)}–${value.max.toFixed(2)})` : '–'

/** A table for each case, with a row for each server. */
export function renderCases(tables: Table[], baseline: string): string {
  return tables
    .map(({ regime, operation, connections, lines }) => {
      const title = [
        operations[operation].label,
        `${connections} ${connections === 1 ? 'connection' : 'connections'}`,
        ...(regime === 'plain' ? [] : [REGIMES[regime]?.label])
      ].join(', ')
      const rows = lines.map((line) => [
        line.label,
        whole(line.serverCpu),
        ratio(line.cpuRatios[baseline]),
        whole(line.postgresCpu),
        `${whole(line.rate.median)} (${whole(line.rate.min)}–${whole(line.rate.max)})`,
        ratio(line.ratios[baseline]),
        milliseconds(line.p50),
        milliseconds(line.p99),
        whole(line.memory)
      ])
      const head = [
        title,
        'CPU µs',
        'CPU ratio',
        'PG CPU µs',
        'req/s',
        'rate ratio',
        'p50 ms',
        'p99 ms',
        'MiB'
      ]
      return markdown(1, [head, ...rows])
    })
    .join('\n\n')
}

/** One table with a row for each case. A cell has the first server and the others beside it. */
export function renderRegimes(tables: Table[]): string {
  const [{ lines: servers = [] } = {}] = tables
  const others = servers.slice(1)
  const head = [
    'regime',
    'operation',
    'CPU µs',
    'PG CPU µs',
    'req/s',
    ...others.map(({ label }) => `ratio to ${label}`),
    'p50 ms',
    'p99 ms'
  ]
  const rows = tables.flatMap(({ regime, operation, lines }) => {
    const all = (value: (line: Line) => string) => lines.map(value).join(' / ')
    const label = operations[operation].label
    const row = [
      REGIMES[regime]?.label ?? regime,
      label,
      all(({ serverCpu }) => whole(serverCpu)),
      all(({ postgresCpu }) => whole(postgresCpu)),
      all(({ rate }) => whole(rate.median)),
      ...others.map(({ server }) => ratio(lines[0]?.ratios[server])),
      all(({ p50 }) => milliseconds(p50)),
      all(({ p99 }) => milliseconds(p99))
    ]
    if (lines[0]?.othersP99 === undefined) return [row]
    const empty = head.slice(2, -2).map(() => '')
    const latencies = [
      all((line) => milliseconds(line.othersP50)),
      all((line) => milliseconds(line.othersP99))
    ]
    return [row, ['', `${label}, the other 99`, ...empty, ...latencies]]
  })
  return `In each cell: ${servers.map(({ label }) => label).join(' / ')}\n\n${markdown(2, [head, ...rows])}`
}

/** @param texts number of columns without figures, from the first */
function markdown(texts: number, rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  const line = (cells: string[], fill?: string) =>
    `| ${cells.map((cell, column) => (column < texts ? cell.padEnd(widths[column] ?? 0, fill) : cell.padStart(widths[column] ?? 0, fill))).join(' | ')} |`
  const [head = [], ...rest] = rows.map((row) => line(row))
  return [
    head,
    line(
      widths.map((_, column) => (column < texts ? '' : ':')),
      '-'
    ),
    ...rest
  ].join('\n')
}
