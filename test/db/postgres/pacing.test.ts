import {
  batchSize,
  type Candidate,
  chooseConnection,
  MAX_BATCH_SIZE,
  maxBatches,
  Pace,
  Recent
} from '../../../db/postgres/pacing.js'
import t from '../../support/tap.js'

/** A connection with this many statements, each of this duration in milliseconds. */
const connection = (name: string, pending = 0, ms = 0, rest: Partial<Candidate> = {}) => ({
  name,
  isOpen: true,
  isWriting: false,
  pending,
  backlogMs: pending * ms,
  isSlow: () => false,
  ...rest
})

const choose = (connections: ReturnType<typeof connection>[], costMs: number, isolated = false) => {
  const { candidate, wantsMore } = chooseConnection(connections, costMs, isolated, 0)
  return [candidate?.name, wantsMore]
}

t.test('quick statements share the first connection while it answers quickly', async (t) => {
  t.strictSame(choose([connection('a', 5, 0.02), connection('b')], 0.02), ['a', false])
  t.strictSame(choose([connection('a', 5, 0.1), connection('b')], 0.1), ['b', false])
  t.strictSame(choose([connection('a', 16), connection('b')], 0), ['b', false], 'and not without end')
})

t.test('a slow statement gets an idle connection', async (t) => {
  t.strictSame(choose([connection('a', 1, 5), connection('b'), connection('c')], 5), ['b', false])
})

t.test('while none is idle, one slow statement runs on each connection and one is queued', async (t) => {
  t.strictSame(choose([connection('a', 2, 5), connection('b', 1, 5)], 5), ['b', true])
  t.strictSame(choose([connection('a', 2, 5), connection('b', 2, 5)], 5), [undefined, true])
})

t.test('while none is idle, a few milliseconds of work are queued on each connection', async (t) => {
  t.strictSame(choose([connection('a', 11, 1), connection('b', 12, 1)], 1), ['a', true])
  t.strictSame(choose([connection('a', 12, 1), connection('b', 12, 1)], 1), [undefined, true])
  t.strictSame(choose([connection('a', 16, 0.1)], 0.1), [undefined, true], 'and no more than 16 statements')
})

t.test('nothing is queued behind a write if another connection is idle', async (t) => {
  const writing = connection('a', 1, 0.1, { isWriting: true })
  t.strictSame(choose([writing, connection('b')], 0.02), ['b', false])
  t.strictSame(choose([writing], 0.02), ['a', true])
})

t.test('the connection with less work gets the statement', async (t) => {
  t.strictSame(choose([connection('a', 1, 20), connection('b', 1, 5)], 5), ['b', true])
})

t.test('nothing is queued behind a statement that takes unusually long', async (t) => {
  const slow = connection('a', 1, 0.02, { isSlow: () => true })
  t.strictSame(choose([slow, connection('b')], 0.02), ['b', false])
  t.strictSame(choose([slow], 0.02), [undefined, true])
})

t.test('an isolated statement waits for an idle connection', async (t) => {
  t.strictSame(choose([connection('a', 1, 0.02), connection('b')], 0.02, true), ['b', false])
  t.strictSame(choose([connection('a', 1, 0.02)], 0.02, true), [undefined, true])
})

t.test('a connection that is not open gets no statement', async (t) => {
  t.strictSame(choose([connection('a', 0, 0, { isOpen: false })], 0.02), [undefined, true])
})

t.test('batches are larger if commits are slow, and smaller if writes are slow', async (t) => {
  t.equal(batchSize(0, 0), MAX_BATCH_SIZE, 'an instant database')
  t.equal(batchSize(0.05, 1), 21)
  t.equal(batchSize(0.05, 5), MAX_BATCH_SIZE, 'a synchronous standby')
  t.equal(batchSize(1, 3), 4)
  t.equal(batchSize(1, 2.9), 1, 'fewer than 4 cost more than they save')
  t.equal(batchSize(5, 1), 1)
  t.equal(batchSize(20, 30), 1)
})

t.test('few large batches or many small ones run at the same time', async (t) => {
  t.equal(maxBatches(32, 1, 0, 10), 3)
  t.equal(maxBatches(2, 1, 0, 10), 10)
  t.ok(maxBatches(32, 1, 20, 10) >= 30, 'the network takes most of the time')
})

const measured = (...runs: number[]) => {
  const pace = new Pace()
  for (const ms of runs) pace.measured(ms)
  return pace.ms
}

t.test("a pace is the median of the server's recent times", async (t) => {
  t.equal(new Pace().ms, 0, 'at first it is taken for instant')
  t.equal(measured(3), 3)
  t.equal(measured(0.1, 0.1, 7, 0.1, 0.1, 0.1, 9, 0.1, 0.1), 0.1, 'a busy machine makes a few of them longer')
  t.equal(measured(0.1, 5, 5, 0.1, 5, 0.1, 5, 5, 0.1), 5, 'most are slow')
  t.equal(measured(...Array(20).fill(5), ...Array(9).fill(1)), 1, 'and only the latest count')
})

t.test('a statement is measured from time to time', async (t) => {
  const pace = new Pace()
  t.strictSame(
    [0, 1, 24, 25, 26, 49, 50, 1_000].map((now) => pace.startsMeasuring(now)),
    [true, false, false, true, false, false, true, true]
  )
})

t.test('a pace remembers a slow statement among a hundred, until there are none', async (t) => {
  const pace = new Pace()
  for (let i = 0; i < 400; i++) pace.answered(i % 100 === 50 ? 200 : 0)
  t.ok(pace.ms > 0.5 && pace.ms < 10, `${pace.ms}`)
  for (let i = 0; i < 500; i++) pace.answered(0)
  t.ok(pace.ms < 0.01)
})

t.test('an answer that was read late is not measured', async (t) => {
  const pace = new Pace()
  for (let i = 0; i < 400; i++) pace.answered(20)
  t.equal(pace.ms, 0)
  for (let i = 0; i < 9; i++) pace.measured(60)
  for (let i = 0; i < 400; i++) pace.answered(60)
  t.equal(pace.ms, 60, 'nor one that takes as long as usual')
})

t.test('Recent keeps the shortest or the longest of recent values', async (t) => {
  const roundTrip = new Recent(Math.min)
  t.equal(roundTrip.ms, 0, 'as long as none is known')
  for (const [now, ms] of [3, 0.2, 7].entries()) roundTrip.measured(ms, now)
  t.equal(roundTrip.ms, 0.2, 'a shorter one counts at once')
  for (const now of [900, 1_500, 1_999]) roundTrip.measured(20, now)
  t.equal(roundTrip.ms, 0.2, 'longer ones may be those of a busy process')
  roundTrip.measured(20, 2_600)
  t.equal(roundTrip.ms, 20, 'until there was no shorter one for a second')

  const delay = new Recent(Math.max)
  for (const [now, ms] of [3, 40, 7].entries()) delay.measured(ms, now)
  for (const now of [1_500, 1_999]) delay.measured(1, now)
  t.equal(delay.ms, 40)
  delay.measured(1, 2_600)
  t.equal(delay.ms, 1)
})
