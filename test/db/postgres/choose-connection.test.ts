import { type Candidate, chooseConnection } from '../../../db/postgres/choose-connection.js'
import t from '../../support/tap.js'

/** A connection with this many statements, each of this duration in milliseconds. */
const connection = (name: string, pending = 0, ms = 0, rest: Partial<Candidate> = {}) => ({
  name,
  isOpen: true,
  isIdle: pending === 0,
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
  t.strictSame(choose([connection('a', 2, 20), connection('b', 1, 20)], 20), ['b', true])
  t.strictSame(choose([connection('a', 2, 20), connection('b', 2, 20)], 20), [undefined, true])
})

t.test('while none is idle, a few milliseconds of work are queued on each connection', async (t) => {
  t.strictSame(choose([connection('a', 14, 2), connection('b', 15, 2)], 2), ['a', true])
  t.strictSame(choose([connection('a', 15, 2), connection('b', 15, 2)], 2), [undefined, true])
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

t.test('a connection gets no statement while its clock does not answer', async (t) => {
  const hanging = connection('a', 0, 0, { isIdle: false, isSlow: () => true })
  t.strictSame(choose([hanging, connection('b')], 0.02), ['b', false])
  t.strictSame(choose([hanging], 0.02), [undefined, true])
})

t.test('a connection that is not open gets no statement', async (t) => {
  t.strictSame(choose([connection('a', 0, 0, { isOpen: false })], 0.02), [undefined, true])
})
