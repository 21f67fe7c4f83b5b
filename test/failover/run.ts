import { parseArgs } from 'node:util'
import { randomOf } from '../faults/random.js'
import { withTeardown } from '../faults/scope.js'
import { FAULTS, type FaultKind } from './faults.js'
import { type Result, type Round, runFailover } from './run-failover.js'

const CLIENTS = 16

const LONG = {
  times: { ttl: 10, loop_wait: 2, retry_timeout: 3 },
  tolerance: 1_000,
  seed: Date.now() % 1_000_000,
  rounds: 10
}
/** For CI: `--short`. Other programs run at the same time, so it does not check durations. */
const SHORT = {
  times: { ttl: 5, loop_wait: 1, retry_timeout: 2 },
  tolerance: 20_000,
  seed: 1,
  rounds: 1,
  fault: 'primary killed'
}

const { values } = parseArgs({
  options: {
    short: { type: 'boolean' },
    seed: { type: 'string' },
    rounds: { type: 'string' },
    fault: { type: 'string' }
  }
})
const { times, tolerance, ...form } = { ...(values.short ? SHORT : LONG), ...values }
const [seed, count] = [Number(form.seed), Number(form.rounds)]
const kinds = FAULTS.filter((one) => form.fault === undefined || form.fault === one)
if (!Number.isInteger(seed) || !(count > 0) || kinds.length === 0) {
  console.error(
    `usage: npm run test:failover -- [--short] [--seed <whole number>] [--rounds <number>] [--fault '${FAULTS.join("'|'")}']`
  )
  process.exit(2)
}

const random = randomOf(seed)
const faults: FaultKind[] = []
while (faults.length < count) faults.push(...random.shuffled([...kinds]))
faults.length = count
const settings = Object.entries(times).map(([name, time]) => `${name} ${time} s`)
console.log(`seed ${seed}, rounds: ${count}; Patroni's ${settings.join(', ')}`)

const { rounds, acknowledged, indeterminate, wrong } = await withTeardown<Result>((t) =>
  runFailover(t, {
    seed,
    times,
    faults,
    clients: CLIENTS,
    tolerance,
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
