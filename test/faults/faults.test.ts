import t, { type Test } from 'tap'
import { lineOf } from './report.js'
import { type Result, runEmbedded, runFaults } from './run-faults.js'
import { FAULT_KINDS } from './schedule.js'

const seed = Number(process.env.FAULTS_SEED ?? Date.now() % 1_000_000)
t.comment(`seed ${seed}`)

/** What is shown of what is wrong; one mistake can break a thousand requests. */
const SHOWN = 20

function isRight(t: Test, { wrong }: Result): void {
  t.equal(wrong.length, 0, 'nothing is lost, doubled, late or out of order')
  for (const { kind, text } of wrong.slice(0, SHOWN)) t.comment(`${kind}: ${text}`)
}

t.test('every kind of fault once, under load', async (t) => {
  const result = await runFaults(t, {
    seed,
    clients: 16,
    longest: 1_000,
    goesOn: (faults) => faults < FAULT_KINDS.length,
    tell: (outcome) => t.comment(lineOf(outcome))
  })
  t.ok(result.acknowledged > 100, `${result.acknowledged} writes were acknowledged`)
  isRight(t, result)
})

t.test('the embedded database outlives kill -9 under load', async (t) => {
  const result = await runEmbedded(t, { seed, clients: 8, kills: 2 })
  t.ok(result.acknowledged > 20, `${result.acknowledged} writes were acknowledged`)
  isRight(t, result)
})
