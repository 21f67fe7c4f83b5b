import { parseArgs } from 'node:util'
import { randomOf } from '../faults/random.js'
import { withTeardown } from '../faults/scope.js'
import { TIMES } from './cluster.js'
import { FAULTS, type FaultKind } from './faults.js'
import { type Result, type Round, runFailover } from './run-failover.js'

const CLIENTS = 16
const TOLERANCE_MS = 1_000

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    rounds: { type: 'string', default: '10' },
    fault: { type: 'string' }
  }
})
const [seed, count] = [Number(values.seed), Number(values.rounds)]
const kinds = FAULTS.filter((one) => values.fault === undefined || values.fault === one)
if (!Number.isInteger(seed) || !(count > 0) || kinds.length === 0) {
  console.error(
    `usage: npm run test:failover -- [--seed <whole number>] [--rounds <number>] [--fault '${FAULTS.join("'|'")}']`
  )
  process.exit(2)
}

const random = randomOf(seed)
const faults: FaultKind[] = []
while (faults.length < count) faults.push(...random.shuffled([...kinds]))
faults.length = count
const times = Object.entries(TIMES).map(([name, time]) => `${name} ${time} s`)
console.log(`seed ${seed}, ${count} rounds; Patroni's ${times.join(', ')}`)

const { rounds, acknowledged, indeterminate, wrong } = await withTeardown<Result>((t) =>
  runFailover(t, {
    seed,
    faults,
    clients: CLIENTS,
    tolerance: TOLERANCE_MS,
    tell: (round) => console.log(lineOf(round))
  })
)
console.log(`
${render(rounds)}

${acknowledged.toLocaleString('en')} writes acknowledged, ${indeterminate.toLocaleString('en')} of which the client cannot know, ${wrong.length} things wrong`)
for (const { kind, text } of wrong) console.log(`- ${kind}: ${text}`)
process.exit(wrong.length > 0 ? 1 : 0)

function lineOf({ fault, outage, detection, promotion, service, statuses, reads, longest }: Round): string {
  const counts = Object.entries(statuses).map(([status, times]) => `${status}: ${times}`)
  return `${fault}: no write for ${seconds(outage)} (detection ${seconds(detection)}, promotion ${seconds(promotion)}, service ${seconds(service)}), ${reads} reads meanwhile; ${counts.join(', ')}; longest ${seconds(longest)}`
}

function render(rounds: Round[]): string {
  const lines = rounds.map(({ fault, outage, detection, promotion, service, longest }) =>
    [fault, ...[outage, detection, promotion, service, longest].map(seconds)].join(' | ')
  )
  const head =
    'fault | no write for | until the new primary | until it takes writes | the service after that | longest answer'
  return [head, '--- | ---: | ---: | ---: | ---: | ---:', ...lines].map((line) => `| ${line} |`).join('\n')
}

function seconds(milliseconds: number | undefined): string {
  return milliseconds === undefined ? '–' : `${(milliseconds / 1000).toFixed(2)} s`
}
