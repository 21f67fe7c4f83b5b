/** One sample of the service, in bytes and milliseconds. Latencies, lag and rate are since the previous sample. */
export interface Sample {
  rss: number
  heap: number
  external: number
  descriptors: number
  handles: number
  connections: number
  lag: number
  p50: number
  p99: number
  rate: number
}

/** Values without clients, after garbage collection. */
export type Rest = Pick<Sample, 'heap' | 'descriptors' | 'handles' | 'connections'>

interface Window {
  samples: Sample[]
  /** After the end of the load. */
  rest: Rest | undefined
}

/** Allowed growth of retained memory from the second minute to the last. */
const TOLERANCE = 0.1

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`
const whole = (count: number) => count.toFixed(1).replace(/\.0$/, '')
const milliseconds = (value: number) => `${value.toFixed(2)} ms`

interface Row {
  label: string
  of: (window: Window) => number
  show: (value: number) => string
  /** Allowed difference at the end; undefined for values that are only shown. */
  tolerance?: (before: number) => number
}

const atRest = (name: keyof Rest) => (window: Window) => window.rest?.[name] ?? Number.NaN
const median = (name: keyof Sample) => (window: Window) =>
  percentile(
    window.samples.map((sample) => sample[name]),
    0.5
  )
const share = (before: number) => before * TOLERANCE
// One of five is more than a tenth.
const shareOrOne = (before: number) => Math.max(1, share(before))

const ROWS: Row[] = [
  { label: 'resident memory', of: median('rss'), show: mebibytes, tolerance: share },
  { label: 'heap at rest', of: atRest('heap'), show: mebibytes, tolerance: share },
  { label: 'file descriptors at rest', of: atRest('descriptors'), show: whole, tolerance: shareOrOne },
  { label: 'handles at rest', of: atRest('handles'), show: whole, tolerance: shareOrOne },
  { label: 'PostgreSQL connections at rest', of: atRest('connections'), show: whole, tolerance: shareOrOne },
  { label: 'heap', of: median('heap'), show: mebibytes },
  { label: 'external memory', of: median('external'), show: mebibytes },
  // These include clients' connections, and depend on the number of running requests.
  { label: 'file descriptors', of: median('descriptors'), show: whole },
  { label: 'handles', of: median('handles'), show: whole },
  { label: 'PostgreSQL connections', of: median('connections'), show: whole, tolerance: shareOrOne },
  { label: 'event loop lag, p99', of: median('lag'), show: milliseconds },
  { label: 'latency, p50', of: median('p50'), show: milliseconds },
  { label: 'latency, p99', of: median('p99'), show: milliseconds },
  { label: 'requests per second', of: median('rate'), show: whole }
]

/** One line with all values of a sample. */
export const lineOf = (sample: Sample) =>
  ROWS.filter(({ label }) => !label.endsWith('at rest'))
    .map(({ label, of, show }) => `${label} ${show(of({ samples: [sample], rest: undefined }))}`)
    .join(', ')

/** Compares the second minute with the last in a Markdown table, and tells if any retained value has grown. */
export function compare(second: Window, last: Window): { table: string; passed: boolean } {
  let passed = true
  const lines = ROWS.map(({ label, of, show, tolerance }) => {
    const [before, after] = [of(second), of(last)]
    // NaN, for a missing value, is no success.
    const isSame = tolerance === undefined || after - before <= tolerance(before)
    passed &&= isSame
    const change = `${after < before ? '−' : '+'}${Math.abs((after / before - 1) * 100).toFixed(1)} %`
    const verdict = tolerance === undefined ? '' : isSame ? 'same' : 'MORE'
    return `| ${[label, show(before), show(after), change, verdict].join(' | ')} |`
  })
  const head = ['| | second minute | last minute | change | |', '| --- | ---: | ---: | ---: | --- |']
  return { table: [...head, ...lines].join('\n'), passed }
}

/** NaN if there are none. */
export function percentile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
