import t from '../support/tap.js'
import { runEmbedded } from './run-faults.js'
import { isRight, SEED, TOLERANCE_MS } from './short-form.js'

t.test('the embedded database outlives kill -9 under load', async (t) => {
  const result = await runEmbedded(t, { seed: SEED, clients: 8, tolerance: TOLERANCE_MS, kills: 2 })
  t.ok(result.acknowledged > 20, `${result.acknowledged} writes were acknowledged`)
  isRight(t, result)
})
