import { Pace, Recent } from '../../../db/postgres/durations.js'
import t from '../../support/tap.js'

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

t.test('a steady statement is measured less often, until its duration changes', async (t) => {
  const pace = new Pace()
  const nextInterval = (ms: number, now: number) => {
    pace.startsMeasuring(now)
    pace.measured(ms)
    for (let later = 1; ; later++) if (pace.startsMeasuring(now + later)) return later
  }
  for (let i = 0; i < 9; i++) nextInterval(5, i * 10_000)
  t.equal(nextInterval(6, 100_000), 400)
  t.equal(nextInterval(0.1, 110_000), 25)
  t.equal(nextInterval(0.1, 120_000), 25, 'the median is still 5 ms')
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
