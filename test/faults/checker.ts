import { groupBy } from './group-by.js'
import { describe, fateOf, type Operation, type SeenTask } from './history.js'
import { searchLinearization } from './linearizability.js'
import { keyOf, stepOf, UNBORN } from './task-model.js'

export type ViolationKind =
  | 'lost'
  | 'duplicated'
  | 'invented'
  | 'disordered'
  | 'two winners'
  | 'not linearizable'
  | 'not checked'

export interface Violation {
  kind: ViolationKind
  /** A description, with the operations that show it. */
  text: string
}

/**
 * Ids contain the service's clock in whole milliseconds, and two replicas have separate counters. A task that is
 * created this soon after another may have a smaller id.
 */
const SAME_MOMENT_MS = 5

/** Number of a history's lines that are shown around the first contradiction. */
const SHOWN = 60

/**
 * Finds violations in a history. It must end with a list of every user's tasks, after all other operations.
 *
 * - An acknowledged request (2xx) was executed exactly once, and a refused one (4xx) changed nothing.
 * - A request with a 5xx or no answer was executed at most once, at any time after it was sent.
 * - All answers for one Idempotency-Key have one task, and there is no other.
 * - Lists are newest first: a task whose creation began after another's had ended comes before it.
 * - Every answer about one task, versions included, fits one order of all operations on it (linearizability).
 */
export function check(history: Operation[]): Violation[] {
  const byUser = groupBy(history, ({ user }) => user)
  return [...byUser].flatMap(([user, operations]) => checkUser(user, operations))
}

function checkUser(user: string, operations: Operation[]): Violation[] {
  const violations: Violation[] = []
  const report = (kind: ViolationKind, text: string, shown: Operation[]) =>
    violations.push({ kind, text: [`${user}: ${text}`, ...shown.map(describe)].join('\n  ') })

  const last = operations.findLast(({ request }) => request.kind === 'list')
  const final = last?.answer?.status === 200 ? last.answer.tasks : undefined
  if (!last || !final || operations.some((one) => one !== last && one.ended > last.began)) {
    report('not checked', 'there is no list after everything else', last ? [last] : [])
    return violations
  }

  const creates = groupBy(operations.filter(isCreate), ({ request }) => request.mark)
  const deleted = new Set(
    operations.flatMap(({ request }) => (request.kind === 'delete' ? [request.id] : []))
  )
  /** The id of every task in an answer, with its mark. */
  const marks = new Map<string, string>()
  for (const { answer } of operations) {
    for (const task of seenIn(answer)) {
      if (!creates.has(task.mark))
        report('invented', `nobody asked for the task ${task.id} "${task.mark}"`, [])
      else if ((marks.get(task.id) ?? task.mark) !== task.mark)
        report('invented', `the task ${task.id} is both "${task.mark}" and "${marks.get(task.id)}"`, [])
      marks.set(task.id, task.mark)
    }
  }

  const there = new Set(final.map(({ id }) => id))
  const wrong = new Set<string>()
  const idsOf = groupBy(marks.keys(), (id) => marks.get(id) as string)
  for (const [mark, attempts] of creates) {
    const ids = idsOf.get(mark) ?? []
    if (ids.length > 1) report('duplicated', `"${mark}" became the tasks ${ids.join(', ')}`, attempts)
    const first = attempts.filter(({ answer }) => answer?.status === 201 && !answer.replayed)
    if (first.length > 1) report('duplicated', `"${mark}" was made ${first.length} times`, attempts)
    if (attempts.every((attempt) => fateOf(attempt) === 'refused') && ids.length > 0)
      report('invented', `"${mark}" was refused, and yet there`, attempts)
    for (const { answer } of attempts) {
      const id = answer?.task?.id
      if (id === undefined || there.has(id) || deleted.has(id) || wrong.has(id)) continue
      wrong.add(id)
      report('lost', `the task ${id} "${mark}" was acknowledged and is not in the last list`, attempts)
    }
  }

  for (const list of operations) if (list.answer?.tasks) checkOrder(list, creates, report)

  const lists = operations.filter(({ request }) => request.kind === 'list')
  const changes = groupBy(operations, ({ request }) => ('id' in request ? request.id : ''))
  changes.delete('')
  for (const id of new Set([...marks.keys(), ...changes.keys()])) {
    if (wrong.has(id)) continue
    const own = changes.get(id) ?? []
    checkVersions(id, own, report)
    checkTask(id, [...(creates.get(marks.get(id) ?? '') ?? []), ...own, ...lists], report)
  }
  return violations
}

type Report = (kind: ViolationKind, text: string, shown: Operation[]) => void
type Create = Operation & { request: { kind: 'create'; mark: string } }

const isCreate = (operation: Operation): operation is Create => operation.request.kind === 'create'

const seenIn = (answer: Operation['answer']): SeenTask[] =>
  answer?.tasks ?? (answer?.task ? [answer.task] : [])

function checkOrder(list: Operation, creates: Map<string, Create[]>, report: Report): void {
  const tasks = list.answer?.tasks ?? []
  // All tasks before this one in the list are newer. Of these, `newer` is the one whose creation ended first.
  let newer: Create | undefined
  for (const [index, task] of tasks.entries()) {
    const before = tasks[index - 1]
    if (before && before.id === task.id) report('duplicated', `a list has ${task.id} twice`, [list])
    else if (before && before.id < task.id)
      report('disordered', `a list has ${before.id} before ${task.id}`, [list])
    const attempts = creates.get(task.mark) ?? []
    const [first] = attempts
    if (newer && first && first.began > newer.ended + SAME_MOMENT_MS)
      report('disordered', `a list has "${task.mark}" after the older "${newer.request.mark}"`, [
        list,
        newer,
        first
      ])
    // A repeated answer says nothing about when the task was made.
    const done = attempts.find(({ answer }) => answer?.status === 201 && !answer.replayed)
    if (done && (newer === undefined || done.ended < newer.ended)) newer = done
  }
}

/** Two changes of a task must not make the same version. */
function checkVersions(id: string, operations: Operation[], report: Report): void {
  const made = operations.filter(
    (one) => fateOf(one) === 'done' && one.request.kind !== 'get' && one.answer?.version !== undefined
  )
  for (const [version, makers] of groupBy(made, ({ answer }) => answer?.version)) {
    if (makers.length > 1)
      report('two winners', `${makers.length} changes of ${id} made version ${version}`, makers)
  }
}

function checkTask(id: string, operations: Operation[], report: Report): void {
  const sorted = [...operations].sort((a, b) => a.began - b.began)
  const steps = sorted.flatMap((operation) => stepOf(id, operation) ?? [])
  const { linearizable, decided, placed, state } = searchLinearization(UNBORN, steps, keyOf)
  if (linearizable) return
  const what = decided ? 'no order of its operations explains the answers' : 'the search took too long'
  // The search places answered operations roughly in their order, so the contradiction is near the last placed one.
  const from = Math.max(0, Math.min(placed - SHOWN / 2, sorted.length - SHOWN))
  const text = `the task ${id}: ${what}; ${placed} of them fit, up to ${JSON.stringify(state)}`
  report(decided ? 'not linearizable' : 'not checked', text, sorted.slice(from, from + SHOWN))
}
