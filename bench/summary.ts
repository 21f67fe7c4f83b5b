import type { Load } from './load.js'
import { type OperationName, operations } from './operations.js'

export interface Measurement extends Load {
  round: number
  server: string
  operation: OperationName
  connections: number
  /** CPU time per request in microseconds, of the server and of PostgreSQL. */
  serverCpu?: number | undefined
  postgresCpu?: number | undefined
  /** The server's largest resident memory since it was started, in MiB. */
  memory?: number | undefined
}

export interface Spread {
  median: number
  min: number
  max: number
}

/** A server in one operation, over all rounds. */
export interface Line {
  server: string
  label: string
  rate: Spread
  /** To the baseline, round by round, so that a machine that drifts between rounds does not show in it. */
  ratio: Spread
  p50: Spread
  p99: Spread
  serverCpu?: Spread | undefined
  postgresCpu?: Spread | undefined
  memory?: Spread | undefined
}

/** All servers in one operation. */
export interface Table {
  operation: OperationName
  connections: number
  lines: Line[]
}

/** What bench/results/latest.json holds. */
export interface Results {
  date: string
  node: string
  postgres: string
  cpu: string
  cores: number
  rounds: number
  /** Of each measurement, without the warm-up. */
  seconds: number
  baseline: string
  tables: Table[]
  measurements: Measurement[]
}

export function summarise(
  measurements: Measurement[],
  baseline: string,
  labels: ReadonlyMap<string, string>
): Table[] {
  const cases = new Map(measurements.map((one) => [`${one.operation} ${one.connections}`, one]))
  return [...cases.values()].map(({ operation, connections }) => {
    const group = measurements.filter((one) => one.operation === operation && one.connections === connections)
    const rates = new Map(
      group.filter(({ server }) => server === baseline).map(({ round, rate }) => [round, rate])
    )
    const lines: Line[] = []
    for (const [server, label] of labels) {
      const own = group.filter((measurement) => measurement.server === server)
      if (own.length === 0) continue
      const of = (value: (measurement: Measurement) => number | undefined) => spread(own.map(value))
      lines.push({
        server,
        label,
        rate: of(({ rate }) => rate) as Spread,
        ratio: of(({ round, rate }) => rate / (rates.get(round) ?? Number.NaN)) as Spread,
        p50: of(({ p50 }) => p50) as Spread,
        p99: of(({ p99 }) => p99) as Spread,
        serverCpu: of(({ serverCpu }) => serverCpu),
        postgresCpu: of(({ postgresCpu }) => postgresCpu),
        memory: of(({ memory }) => memory)
      })
    }
    return { operation, connections, lines }
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

const HEAD = ['', 'req/s', 'min–max', 'ratio', 'min–max', 'p50 ms', 'p99 ms', 'CPU µs', 'PG CPU µs', 'MiB']

/** One block of text for each operation; medians, with the spread over the rounds where it matters. */
export function render(tables: Table[]): string {
  return tables.map(renderTable).join('\n\n')
}

function renderTable({ operation, connections, lines }: Table): string {
  const rows = lines.map(({ label, rate, ratio, p50, p99, serverCpu, postgresCpu, memory }) => [
    label,
    whole(rate.median),
    `${whole(rate.min)}–${whole(rate.max)}`,
    ratio.median.toFixed(2),
    `${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)}`,
    p50.median.toFixed(2),
    p99.median.toFixed(2),
    whole(serverCpu?.median),
    whole(postgresCpu?.median),
    whole(memory?.median)
  ])
  const all = [HEAD, ...rows]
  const widths = HEAD.map((_, column) => Math.max(...all.map((row) => (row[column] as string).length)))
  const text = all.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] as number) : cell.padStart(widths[column] as number)
      )
      .join('  ')
  )
  const title = `${operations[operation].label}, ${connections} ${connections === 1 ? 'connection' : 'connections'}`
  return [title, ...text].join('\n')
}

export const whole = (value: number | undefined) =>
  value === undefined ? '–' : Math.round(value).toLocaleString('en')
