import { parseArgs } from 'node:util'
import { lineOf, render } from './report.js'
import { runEmbedded, runFaults } from './run-faults.js'

const CLIENTS = 24
const EMBEDDED_CLIENTS = 8
const KILLS = 20
/** No fault is made shorter than its kind says. */
const LONGEST_MS = 10_000

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    minutes: { type: 'string', default: '10' }
  }
})
const [seed, minutes] = [Number(values.seed), Number(values.minutes)]
if (!Number.isInteger(seed) || !(minutes > 0)) {
  console.error('usage: npm run test:faults -- [--seed <whole number>] [--minutes <number>]')
  process.exit(2)
}
console.log(`seed ${seed}, ${minutes} minutes of faults, then ${KILLS} × kill -9 on the embedded database`)

const began = performance.now()
const age = () => `${((performance.now() - began) / 1000).toFixed(0)} s`.padStart(6)
const result = await withTeardown((t) =>
  runFaults(t, {
    seed,
    clients: CLIENTS,
    longest: LONGEST_MS,
    goesOn: () => performance.now() - began < minutes * 60_000,
    tell: (outcome) => console.log(`${age()}  ${lineOf(outcome)}`)
  })
)
const embedded = await withTeardown((t) => runEmbedded(t, { seed, clients: EMBEDDED_CLIENTS, kills: KILLS }))
console.log(`${age()}  checked\n\n${render(result, embedded, KILLS)}`)
process.exit(result.wrong.length + embedded.wrong.length > 0 ? 1 : 0)

/** Does work in a scope as tests have one: what it starts ends with it, the latest first. */
async function withTeardown<T>(work: (t: { teardown(end: () => unknown): void }) => Promise<T>): Promise<T> {
  const ends: (() => unknown)[] = []
  try {
    return await work({ teardown: (end) => ends.push(end) })
  } finally {
    for (const end of ends.reverse()) await end()
  }
}
