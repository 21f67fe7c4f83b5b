import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { OperationName } from './operations.js'
import { operations } from './operations.js'
import { type Line, type Results, whole } from './summary.js'

const docs = join(import.meta.dirname, '..', 'docs')

const SHOWN: OperationName[] = ['get', 'list']
const CONNECTIONS = 50

const WIDTH = 760
const LABEL_WIDTH = 270
const VALUE_WIDTH = 90
const BAR = 18
const ROW = 26
const HEADING = 40

// An image cannot know the page's theme, only the reader's. These colours work on any background.
const STYLE = `
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .heading { font-weight: 600; font-size: 15px }
  .note { font-size: 11px; fill: #656d76 }
  .bar { fill: #8c959f }
  .ours { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note { fill: #9198a1 }
    .bar { fill: #656d76 }
    .ours { fill: #4493f8 }
  }`

/** Draws docs/performance.svg: answers per second to get and list, for every server. */
export function drawChart(results: Results): void {
  const parts: string[] = []
  let y = 0
  for (const operation of SHOWN) {
    const table = results.tables.find(
      (one) => one.regime === 'plain' && one.operation === operation && one.connections === CONNECTIONS
    )
    if (!table) throw new Error(`the results have no ${operation} with ${CONNECTIONS} connections`)
    y += HEADING
    const heading = `${operations[operation].label}, answers per second`
    parts.push(text(0, y - 14, heading, 'class="heading"'))
    const lines = table.lines.toSorted((a, b) => b.rate.median - a.rate.median)
    const most = lines[0]?.rate.median ?? 1
    for (const line of lines) {
      parts.push(bar(line, y, most))
      y += ROW
    }
  }
  y += 28
  const note =
    `Medians of ${results.rounds} rounds, ${CONNECTIONS} connections; Node ${results.node}, PostgreSQL ` +
    `${results.postgres}, clients and database on the same ${results.cores} cores (${results.cpu.trim()})`
  parts.push(text(0, y - 6, note, 'class="note"'))

  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" role="img">
<title>Answers per second of this service and of its peers</title>
<style>${STYLE}
</style>
${parts.join('\n')}
</svg>
`
  mkdirSync(docs, { recursive: true })
  writeFileSync(join(docs, 'performance.svg'), svg)
}

function bar({ server, label, rate }: Line, y: number, most: number): string {
  const width = Math.max(1, Math.round((rate.median / most) * (WIDTH - LABEL_WIDTH - VALUE_WIDTH)))
  const middle = y + BAR / 2 + 5
  return [
    text(LABEL_WIDTH - 10, middle, label, 'text-anchor="end"'),
    `<rect class="${server === 'ours' ? 'ours' : 'bar'}" x="${LABEL_WIDTH}" y="${y}" width="${width}" height="${BAR}" rx="2"/>`,
    text(LABEL_WIDTH + width + 8, middle, whole(rate.median))
  ].join('\n')
}

function text(x: number, y: number, content: string, attributes = ''): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${x}" y="${y}" ${attributes}>${escaped}</text>`
}

// npx tsx bench/chart.ts: draws the latest results.
if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  drawChart(JSON.parse(readFileSync(join(import.meta.dirname, 'results', 'latest.json'), 'utf8')) as Results)
}
