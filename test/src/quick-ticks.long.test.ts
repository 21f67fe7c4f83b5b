import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { emptyFolder, startProcess } from '../support/process.js'
import t from '../support/tap.js'

interface HeapSnapshot {
  snapshot: { meta: { node_fields: string[]; edge_fields: string[]; edge_types: [string[]] } }
  nodes: number[]
  edges: number[]
  strings: string[]
}

/** Counts the objects that have these properties. */
function count({ snapshot: { meta }, nodes, edges, strings }: HeapSnapshot, properties: string[]): number {
  const edgeCount = meta.node_fields.indexOf('edge_count')
  const [type, name] = ['type', 'name_or_index'].map((field) => meta.edge_fields.indexOf(field)) as [
    number,
    number
  ]
  const property = meta.edge_types[0].indexOf('property')
  let found = 0
  let edge = 0
  for (let node = 0; node < nodes.length; node += meta.node_fields.length) {
    const end = edge + (nodes[node + edgeCount] as number) * meta.edge_fields.length
    const names = new Set<string | undefined>()
    for (; edge < end; edge += meta.edge_fields.length) {
      if (edges[edge + type] === property) names.add(strings[edges[edge + name] as number])
    }
    if (properties.every((name) => names.has(name))) found++
  }
  return found
}

// Without one, V8 would free the hidden class of these objects.
t.test("the service keeps one of Node's tick objects", async (t) => {
  const folder = emptyFolder(t)
  const hook = join(folder, 'hook.cjs')
  // Wrong settings end the process at once, while its heap is small. No tick runs in the event of a timer.
  writeFileSync(
    hook,
    `const { exit } = process
    process.exit = (code) => setTimeout(() => {
      require('node:v8').writeHeapSnapshot()
      exit(code)
    })`
  )
  const service = await startProcess(
    t,
    { NODE_OPTIONS: `--require ${hook}`, DATABASE_URL: 'wrong' },
    { cwd: folder }
  )
  t.equal((await service.exit()).code, 1)
  const [file] = readdirSync(folder).filter((name) => name.endsWith('.heapsnapshot'))
  const snapshot: HeapSnapshot = JSON.parse(readFileSync(join(folder, file as string), 'utf8'))
  t.equal(count(snapshot, ['callback', 'args']), 1)
})
