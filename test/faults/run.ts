import { parseArgs } from 'node:util'
import { TRANSPORTS, type Transport } from '../support/databases.js'
import { lineOf, render } from './report.js'
import { type Result, runEmbedded, runFaults } from './run-faults.js'
import { withTeardown } from './scope.js'

const CLIENTS = 24
const EMBEDDED_CLIENTS = 8
const KILLS = 20
const TOLERANCE_MS = 1_000
/** Faults have their full duration. */
const LONGEST_MS = 10_000

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    minutes: { type: 'string', default: '10' },
    transport: { type: 'string' }
  }
})
const [seed, minutes] = [Number(values.seed), Number(values.minutes)]
const transports = TRANSPORTS.filter((one) => values.transport === undefined || values.transport === one)
if (!Number.isInteger(seed) || !(minutes > 0) || transports.length === 0) {
  console.error(
    'usage: npm run test:faults -- [--seed <whole number>] [--minutes <number>] [--transport plain|tls]'
  )
  process.exit(2)
}
console.log(
  `seed ${seed}, ${minutes} minutes of faults over ${transports.join(' and over ')}, then ${KILLS} × kill -9 on the embedded database`
)

const results: Result[] = []
try {
  for (const transport of transports) results.push(await faultsOver(transport))
  results.push(
    await withTeardown((t) =>
      runEmbedded(t, { seed, clients: EMBEDDED_CLIENTS, tolerance: TOLERANCE_MS, kills: KILLS })
    )
  )
} finally {
  console.log(`\n${render(results)}`)
}
process.exit(results.some(({ wrong }) => wrong.length > 0) ? 1 : 0)

async function faultsOver(transport: Transport): Promise<Result> {
  const began = performance.now()
  const passed = () => performance.now() - began
  return withTeardown((t) =>
    runFaults(t, {
      seed,
      transport,
      clients: CLIENTS,
      tolerance: TOLERANCE_MS,
      longest: LONGEST_MS,
      goesOn: () => passed() < minutes * 60_000,
      tell: (outcome) =>
        console.log(`${transport} ${(passed() / 1000).toFixed(0).padStart(4)} s  ${lineOf(outcome)}`)
    })
  )
}
