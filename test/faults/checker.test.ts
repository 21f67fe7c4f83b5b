import t, { type Test } from '../support/tap.js'
import { checkAnswers } from './answers.js'
import { check, type ViolationKind } from './checker.js'
import type { Answer, Operation, Request, SeenTask } from './history.js'

type Times = [began: number, ended: number]

const alice = { user: 'alice', client: 0, replica: 0 }
const operation = ([began, ended]: Times, request: Request, answer?: Answer): Operation => ({
  ...alice,
  request,
  began,
  ended,
  ...(answer && { answer })
})

const REFUSAL: Answer = { status: 503, code: 'unavailable', hasRetryAfter: true }
const NOT_FOUND: Answer = { status: 404 }

/** A task whose mark and first title are its id. */
const task = (id: string, completed = false, title = id): SeenTask => ({ id, mark: id, title, completed })
const one = (seen: SeenTask, version: number, status = 200): Answer => ({ status, version, task: seen })

const create = (times: Times, id: string, answer: Answer | undefined = one(task(id), 1, 201)) =>
  operation(times, { kind: 'create', mark: id, title: id, completed: false }, answer)
const unanswered = (times: Times, id: string) =>
  operation(times, { kind: 'create', mark: id, title: id, completed: false })
const keyed = (times: Times, answer?: Answer) =>
  operation(times, { kind: 'create', mark: 'a', title: 'a', completed: false, key: 'k' }, answer)
const made = (id = 'a', replayed = false): Answer => ({
  ...one({ ...task('a'), id }, 1, 201),
  replayed
})
const toggle = (times: Times, answer?: Answer) => operation(times, { kind: 'toggle', id: 'a' }, answer)
const set = (times: Times, completed: boolean, answer?: Answer) =>
  operation(times, { kind: 'set', id: 'a', completed }, answer)
const update = (times: Times, version: number | undefined, title: string, answer?: Answer) =>
  operation(times, { kind: 'update', id: 'a', title, ...(version !== undefined && { version }) }, answer)
const remove = (times: Times, answer?: Answer) => operation(times, { kind: 'delete', id: 'a' }, answer)
const get = (times: Times, answer: Answer) => operation(times, { kind: 'get', id: 'a' }, answer)
const list = (times: Times, ...tasks: SeenTask[]) =>
  operation(times, { kind: 'list', status: 'all' }, { status: 200, tasks })
const pending = (times: Times, ...tasks: SeenTask[]) =>
  operation(times, { kind: 'list', status: 'pending' }, { status: 200, tasks })

const END: Times = [1_000, 1_001]

function kindsOf(history: Operation[]): ViolationKind[] {
  return check(history).map(({ kind }) => kind)
}

const good: [what: string, history: Operation[]][] = [
  ['nothing happened', [list(END)]],
  [
    'what was acknowledged is there, newest first',
    [create([0, 1], 'a'), create([10, 11], 'b'), list(END, task('b'), task('a'))]
  ],
  [
    'simultaneous creates come in either order',
    [create([0, 20], 'b'), create([1, 20], 'a'), list(END, task('b'), task('a'))]
  ],
  ['a create without an answer was carried out', [unanswered([0, 1], 'a'), list(END, task('a'))]],
  ['a create without an answer was not', [create([0, 1], 'a', REFUSAL), list(END)]],
  [
    'a create without an answer was carried out long after',
    [unanswered([0, 1], 'a'), list([10, 11]), list([20, 21], task('a')), list(END, task('a'))]
  ],
  [
    'a key was retried, and the first attempt had made the task',
    [keyed([0, 1]), keyed([2, 3], REFUSAL), keyed([4, 5], made('a', true)), list(END, task('a'))]
  ],
  [
    'a key was sent twice at once',
    [keyed([0, 9], made('a', true)), keyed([1, 8], made()), list(END, task('a'))]
  ],
  [
    'of two changes of one version one won',
    [
      create([0, 1], 'a'),
      update([10, 15], 1, 'x', one(task('a', false, 'x'), 2)),
      update([11, 14], 1, 'y', { status: 412, version: 2 }),
      list(END, task('a', false, 'x'))
    ]
  ],
  [
    'a change without an answer won, and nobody else did',
    [
      create([0, 1], 'a'),
      update([10, 15], 1, 'x', REFUSAL),
      update([20, 21], 1, 'y', { status: 412, version: 2 }),
      list(END, task('a', false, 'x'))
    ]
  ],
  [
    'simultaneous toggles were answered in another order than they were sent in',
    [
      create([0, 1], 'a'),
      toggle([10, 20], one(task('a'), 3)),
      toggle([11, 20], one(task('a', true), 2)),
      toggle([12, 20], one(task('a', true), 4)),
      list(END, task('a', true))
    ]
  ],
  [
    'a toggle without an answer took effect between two others',
    [
      create([0, 1], 'a'),
      toggle([2, 3]),
      toggle([10, 11], one(task('a', true), 2)),
      toggle([20, 21], one(task('a', true), 4)),
      list(END, task('a', true))
    ]
  ],
  [
    'sets and gets are part of the same history',
    [
      create([0, 1], 'a'),
      set([10, 20], true, one(task('a', true), 2)),
      toggle([15, 25], one(task('a'), 3)),
      get([16, 24], one(task('a', true), 2)),
      list(END, task('a'))
    ]
  ],
  [
    'a list by status',
    [
      create([0, 1], 'a'),
      pending([2, 3], task('a')),
      set([4, 5], true, one(task('a', true), 2)),
      pending([6, 7]),
      list(END, task('a', true))
    ]
  ],
  [
    'what was deleted is gone',
    [create([0, 1], 'a'), remove([2, 3], { status: 204 }), get([4, 5], NOT_FOUND), list(END)]
  ],
  ['a delete without an answer was carried out', [create([0, 1], 'a'), remove([2, 3]), list(END)]],
  [
    'a toggle of what was deleted changed nothing',
    [create([0, 1], 'a'), remove([2, 9], { status: 204 }), toggle([3, 8], NOT_FOUND), list(END)]
  ],
  [
    'many changes without an answer, of which none took effect',
    [
      create([0, 1], 'a'),
      ...Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? toggle([2, 3]) : set([2, 3], i % 4 === 1))),
      get([10, 11], one(task('a'), 1)),
      list(END, task('a'))
    ]
  ]
]

const bad: [what: string, kind: ViolationKind, history: Operation[]][] = [
  ['an acknowledged create is lost', 'lost', [create([0, 1], 'a'), list(END)]],
  ['an acknowledged retry is lost', 'lost', [keyed([0, 1]), keyed([2, 3], made('a', true)), list(END)]],
  [
    'a create is there twice',
    'duplicated',
    [create([0, 1], 'a'), list(END, { ...task('a'), id: 'b' }, task('a'))]
  ],
  ['a task is in a list twice', 'duplicated', [create([0, 1], 'a'), list(END, task('a'), task('a'))]],
  [
    'a create without an answer is there twice',
    'duplicated',
    [unanswered([0, 1], 'a'), list(END, { ...task('a'), id: 'b' }, task('a'))]
  ],
  [
    'two answers for one key name two tasks',
    'duplicated',
    [keyed([0, 1], made('a')), keyed([2, 3], made('b', true)), list(END, task('a'))]
  ],
  [
    'two answers for one key say that they made the task',
    'duplicated',
    [keyed([0, 1], made()), keyed([2, 3], made()), list(END, task('a'))]
  ],
  ['a task is there that nobody asked for', 'invented', [list(END, task('a'))]],
  ['a refused create is there', 'invented', [create([0, 1], 'a', { status: 422 }), list(END, task('a'))]],
  [
    'a list is oldest first',
    'disordered',
    [create([0, 1], 'a'), create([10, 11], 'b'), list(END, task('a'), task('b'))]
  ],
  [
    'a newer task has a smaller id',
    'disordered',
    [create([0, 1], 'b'), create([10, 11], 'a'), list(END, task('b'), task('a'))]
  ],
  [
    'two changes of one version won',
    'two winners',
    [
      create([0, 1], 'a'),
      update([10, 15], 1, 'x', one(task('a', false, 'x'), 2)),
      update([11, 14], 1, 'y', one(task('a', false, 'y'), 2)),
      list(END, task('a', false, 'y'))
    ]
  ],
  [
    'a change of an old version won',
    'not linearizable',
    [
      create([0, 1], 'a'),
      update([10, 11], 1, 'x', one(task('a', false, 'x'), 2)),
      update([20, 21], 1, 'y', one(task('a', false, 'y'), 3)),
      list(END, task('a', false, 'y'))
    ]
  ],
  [
    'a change was refused although nobody had made another',
    'not linearizable',
    [create([0, 1], 'a'), update([10, 11], 1, 'x', { status: 412, version: 1 }), list(END, task('a'))]
  ],
  [
    'a refused change is there',
    'not linearizable',
    [create([0, 1], 'a'), update([10, 11], undefined, 'x', NOT_FOUND), list(END, task('a', false, 'x'))]
  ],
  [
    'a version was left out',
    'not linearizable',
    [create([0, 1], 'a'), toggle([10, 11], one(task('a', true), 3)), list(END, task('a', true))]
  ],
  [
    'a toggle was answered with the state before it',
    'not linearizable',
    [create([0, 1], 'a'), toggle([10, 11], one(task('a', false), 2)), list(END, task('a', true))]
  ],
  [
    'a toggle took effect twice',
    'not linearizable',
    [create([0, 1], 'a'), toggle([10, 11], one(task('a', true), 2)), list(END, task('a'))]
  ],
  [
    'an acknowledged toggle is lost',
    'not linearizable',
    [create([0, 1], 'a'), toggle([10, 11], one(task('a', true), 2)), list(END, task('a'))]
  ],
  [
    'a toggle without an answer took effect twice',
    'not linearizable',
    [create([0, 1], 'a'), toggle([2, 3]), get([10, 11], one(task('a'), 3)), list(END, task('a'))]
  ],
  [
    'toggles were answered in an order that their times rule out',
    'not linearizable',
    [
      create([0, 1], 'a'),
      toggle([10, 11], one(task('a'), 3)),
      toggle([20, 21], one(task('a', true), 2)),
      list(END, task('a'))
    ]
  ],
  [
    'a get went back in time',
    'not linearizable',
    [
      create([0, 1], 'a'),
      toggle([2, 3], one(task('a', true), 2)),
      get([10, 11], one(task('a'), 1)),
      list(END, task('a', true))
    ]
  ],
  [
    'a list went back in time',
    'not linearizable',
    [create([0, 1], 'a'), list([10, 11]), list(END, task('a'))]
  ],
  [
    'a list by status has another state',
    'not linearizable',
    [
      create([0, 1], 'a'),
      set([2, 3], true, one(task('a', true), 2)),
      pending([4, 5], task('a')),
      list(END, task('a', true))
    ]
  ],
  [
    'what was deleted came back',
    'not linearizable',
    [create([0, 1], 'a'), remove([2, 3], { status: 204 }), list(END, task('a'))]
  ],
  ['nobody looked at the end', 'not checked', [create([0, 1], 'a')]],
  ['something came after the last list', 'not checked', [list([0, 1]), create([2, 3], 'a')]]
]

t.test('no violation in a history in which', async (t) => {
  for (const [what, history] of good) t.strictSame(check(history), [], what)
})

t.test('a violation in a history in which', async (t) => {
  for (const [what, kind, history] of bad) {
    const found = kindsOf(history)
    t.ok(found.includes(kind), `${what}: ${found.join(', ') || 'nothing found'}`)
  }
})

t.test('a violation is reported with its operations', async (t) => {
  const [violation] = check([create([0, 1], 'a'), toggle([10, 11], one(task('a'), 2)), list(END, task('a'))])
  t.match(violation?.text, /^alice: the task a: .*\n.*create.*\n.*10–11 ms, client 0 at replica 0: toggle/)
})

t.test("another user's operations are not part of it", async (t) => {
  const bob = [create([0, 1], 'a'), list(END)].map((operation) => ({ ...operation, user: 'bob' }))
  t.strictSame(kindsOf([create([0, 1], 'a'), ...bob, list(END, task('a'))]), ['lost'])
})

t.test('single answers', async (t) => {
  const down = [{ replica: 0, from: 100, to: 200 }]
  const wrong = (t: Test, operation: Operation, expected: RegExp | undefined) => {
    const [found] = checkAnswers([operation], down, 6_000)
    if (expected) t.match(found, expected)
    else t.equal(found, undefined)
  }
  wrong(t, create([0, 5_900], 'a', REFUSAL), undefined)
  wrong(t, create([0, 6_100], 'a', REFUSAL), /^late/)
  wrong(t, create([0, 6_100], 'a'), /^late/)
  wrong(t, create([0, 1], 'a', { status: 500, code: 'internal' }), /^undocumented/)
  wrong(t, create([0, 1], 'a', { status: 404 }), /^undocumented/)
  wrong(t, toggle([0, 1], { status: 412 }), /^undocumented/)
  wrong(t, create([0, 1], 'a', { status: 503, code: 'unavailable' }), /Retry-After/)
  wrong(t, create([0, 1], 'a', { ...REFUSAL, code: 'internal' }), /Retry-After/)
  wrong(t, unanswered([0, 1], 'a'), /^no answer/)
  wrong(t, unanswered([90, 110], 'a'), undefined)
  wrong(t, { ...unanswered([90, 110], 'a'), replica: 1 }, /^no answer/)
})
