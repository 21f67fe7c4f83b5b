import { Turns } from '../../../db/postgres/turns.js'
import t from '../../support/tap.js'

/** Takes a turn for each name in this order. `begun` has the names whose turn has begun. */
function take(turns: Turns, ...names: string[]) {
  const begun: string[] = []
  const leave = names.map((name) => turns.take(name[0] as string, () => begun.push(name)))
  return { begun, leave }
}

t.test('turns begin in order, up to the limit', async (t) => {
  const turns = new Turns(2, 2)
  const { begun } = take(turns, 'a1', 'b1', 'c1', 'd1')
  t.strictSame(begun, ['a1', 'b1'])
  t.equal(turns.waiting, 2)
  t.equal(turns.waitingOf('c'), 1)
  t.equal(turns.waitingOf('a'), 0)
  turns.end('a')
  turns.end('b')
  t.strictSame(begun, ['a1', 'b1', 'c1', 'd1'])
  t.equal(turns.waiting, 0)
})

t.test('a user who has the most waits, and others overtake', async (t) => {
  const turns = new Turns(3, 2)
  const { begun } = take(turns, 'a1', 'a2', 'a3', 'b1', 'c1')
  t.strictSame(begun, ['a1', 'a2', 'b1'])
  turns.end('b')
  t.strictSame(begun, ['a1', 'a2', 'b1', 'c1'])
  turns.end('a')
  t.strictSame(begun, ['a1', 'a2', 'b1', 'c1', 'a3'])
  const more = take(turns, 'a4')
  turns.end('c')
  t.strictSame(more.begun, [], 'a turn is free, but not for this user')
  turns.end('a')
  t.strictSame(more.begun, ['a4'])
  turns.end('a')
  turns.end('a')
  t.strictSame(take(turns, 'a5', 'a6', 'd1').begun, ['a5', 'a6', 'd1'], 'all turns have ended')
})

t.test('who leaves the queue gets no turn', async (t) => {
  const turns = new Turns(1, 1)
  const { begun, leave } = take(turns, 'a1', 'b1', 'c1')
  leave[1]?.()
  leave[1]?.()
  turns.end('a')
  t.strictSame(begun, ['a1', 'c1'])
  leave[0]?.()
  t.equal(turns.waiting, 0)
  turns.end('c')
  t.strictSame(take(turns, 'd1').begun, ['d1'])
})
