import type { Transport } from '../support/databases.js'
import t, { type Test } from '../support/tap.js'
import { lineOf } from './report.js'
import { type Result, runFaults } from './run-faults.js'
import type { FaultKind } from './schedule.js'

// The seed is fixed, so only a change of the code makes this fail. `npm run test:faults` takes a new seed each time.
export const SEED = Number(process.env.FAULTS_SEED ?? 1)

/** Other tests run at the same time, so the short form does not check durations. The long form does. */
export const TOLERANCE_MS = 20_000

/** Number of violations that are shown. One bug can break a thousand requests. */
const SHOWN = 20

export function isRight(t: Test, { wrong }: Result): void {
  t.equal(wrong.length, 0, 'nothing is lost, doubled, late or out of order')
  for (const { kind, text } of wrong.slice(0, SHOWN)) t.comment(`${kind}: ${text}`)
}

/** Each of these faults once, with a short duration. */
export function testFaults(what: string, transport: Transport, kinds: FaultKind[]): void {
  t.test(what, async (t) => {
    const result = await runFaults(t, {
      seed: SEED,
      transport,
      kinds,
      clients: 16,
      tolerance: TOLERANCE_MS,
      longest: 1_000,
      goesOn: (faults) => faults < kinds.length,
      tell: (outcome) => t.comment(lineOf(outcome))
    })
    t.ok(result.acknowledged > 100, `${result.acknowledged} writes were acknowledged`)
    t.ok(result.longLists.whole, 'long lists were read')
    isRight(t, result)
  })
}
