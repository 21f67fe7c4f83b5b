import t from 'tap'
import {
  batchSize,
  type Candidate,
  chooseConnection,
  MAX_BATCH_SIZE,
  maxBatches,
  Pace
} from '../../../db/postgres/pacing.js'

/** A connection with so many statements of so many milliseconds each. */
const connection = (name: string, pending = 0, ms = 0, rest: Partial<Candidate> = {}) => ({
  name,
  isOpen: true,
  pending,
  owedMs: pending * ms,
  isSlow: () => false,
  ...rest
})

const choose = (connections: ReturnType<typeof connection>[], costMs: number, isolated = false) => {
  const { candidate, wantsMore } = chooseConnection(connections, costMs, isolated, 0)
  return [candidate?.name, wantsMore]
}

t.test('quick statements share the first connection as long as it answers them soon', async (t) => {
  t.strictSame(choose([connection('a', 5, 0.02), connection('b')], 0.02), ['a', false])
  t.strictSame(choose([connection('a', 50, 0.02), connection('b')], 0.02), ['b', false])
})

t.test('a slow statement gets an idle connection', async (t) => {
  t.strictSame(choose([connection('a', 1, 5), connection('b'), connection('c')], 5), ['b', false])
})

t.test('while none is idle, one slow statement runs on each connection and one is queued', async (t) => {
  t.strictSame(choose([connection('a', 2, 5), connection('b', 1, 5)], 5), ['b', true])
  t.strictSame(choose([connection('a', 2, 5), connection('b', 2, 5)], 5), [undefined, true])
})

t.test('of two, the one with less to do gets the statement', async (t) => {
  t.strictSame(choose([connection('a', 1, 20), connection('b', 1, 5)], 5), ['b', true])
})

t.test('nothing is queued behind a statement that takes unusually long', async (t) => {
  const slow = connection('a', 1, 0.02, { isSlow: () => true })
  t.strictSame(choose([slow, connection('b')], 0.02), ['b', false])
  t.strictSame(choose([slow], 0.02), [undefined, true])
})

t.test('an isolated statement waits for a connection that has nothing else to do', async (t) => {
  t.strictSame(choose([connection('a', 1, 0.02), connection('b')], 0.02, true), ['b', false])
  t.strictSame(choose([connection('a', 1, 0.02)], 0.02, true), [undefined, true])
})

t.test('a connection that is not open gets nothing', async (t) => {
  t.strictSame(choose([connection('a', 0, 0, { isOpen: false })], 0.02), [undefined, true])
})

t.test(
  'more writes share a transaction the longer its commit takes, and fewer the longer they run',
  async (t) => {
    t.equal(batchSize(0, 0), MAX_BATCH_SIZE, 'an instant database')
    t.equal(batchSize(0.05, 1), 21)
    t.equal(batchSize(0.05, 5), MAX_BATCH_SIZE, 'a synchronous standby')
    t.equal(batchSize(1, 1), 2)
    t.equal(batchSize(5, 1), 1)
    t.equal(batchSize(20, 30), 2)
  }
)

t.test('few large batches are under way, or many small ones', async (t) => {
  t.equal(maxBatches(32, 1, 0, 10), 3)
  t.equal(maxBatches(2, 1, 0, 10), 10)
  t.ok(maxBatches(32, 1, 20, 10) >= 30, 'the network takes most of the time')
})

t.test('a pace follows what it observes, and forgets', async (t) => {
  const pace = new Pace(4)
  t.equal(pace.ms, 0)
  pace.observe(8)
  t.equal(pace.ms, 2)
  pace.observe(-1)
  t.equal(pace.ms, 1.5, 'less than nothing is nothing')
  for (let i = 0; i < 50; i++) pace.observe(3)
  t.ok(Math.abs(pace.ms - 3) < 0.001)
})
