import { fateOf, type Operation, type SeenTask } from './history.js'
import type { Step } from './linearizability.js'

/** A task in the service's contract: created once, a new version with every change, deleted for good. */
export type TaskState =
  | { is: 'unborn' | 'deleted' }
  | { is: 'there'; version: number; title: string; completed: boolean }

export const UNBORN: TaskState = { is: 'unborn' }

export const keyOf = (state: TaskState) =>
  state.is === 'there' ? `${state.version} ${state.completed} ${state.title}` : state.is

/**
 * An operation as a step in the history of the task `id`. The operation must be known to belong to it.
 *
 * @returns undefined if it gives no information
 */
export function stepOf(id: string, operation: Operation): Step<TaskState> | undefined {
  const fate = fateOf(operation)
  const { request, answer } = operation
  const isRead = request.kind === 'get' || request.kind === 'list'
  if (fate === 'unknown' && isRead) return undefined
  const times = {
    began: operation.began,
    ended: fate === 'unknown' ? Number.POSITIVE_INFINITY : operation.ended
  }
  const name = JSON.stringify(request)
  if (request.kind === 'list') {
    const seen = answer?.tasks?.find((task) => task.id === id)
    const { status } = request
    return { ...times, name, apply: (state) => (shows(status, seen, state) ? state : undefined) }
  }
  return {
    ...times,
    name,
    apply(state) {
      const after = effectOf(operation, state)
      if (fate === 'unknown') return after
      if (fate === 'refused') return answer?.status === refusalOf(operation, state) ? state : undefined
      return after && isAnswered(operation, after) ? after : undefined
    },
    isTooLate(state) {
      if (fate !== 'done' || answer?.version === undefined || state.is === 'unborn') return false
      if (state.is !== 'there') return true
      const changes = !isRead && request.kind !== 'create'
      return changes ? state.version >= answer.version : state.version > answer.version
    }
  }
}

/** The state after the operation; undefined if the operation is impossible in this state. */
function effectOf({ request, answer }: Operation, state: TaskState): TaskState | undefined {
  if (request.kind === 'create') {
    const { title, completed } = request
    const isFirst = state.is === 'unborn'
    if (answer?.replayed !== undefined && answer.replayed === isFirst) return undefined
    if (isFirst) return { is: 'there', version: 1, title, completed }
    return request.key !== undefined && state.is === 'there' ? state : undefined
  }
  if (state.is !== 'there') return undefined
  const version = state.version + 1
  switch (request.kind) {
    case 'update':
      if (request.version !== undefined && request.version !== state.version) return undefined
      return { ...state, version, title: request.title }
    case 'toggle':
      return { ...state, version, completed: !state.completed }
    case 'set':
      return { ...state, version, completed: request.completed }
    case 'delete':
      return { is: 'deleted' }
    default:
      return state
  }
}

/** True if the answer of an executed operation has the state after it. */
function isAnswered({ request, answer }: Operation, after: TaskState): boolean {
  if (request.kind === 'delete') return after.is === 'deleted'
  return (
    after.is === 'there' &&
    answer?.version === after.version &&
    answer.task?.title === after.title &&
    answer.task.completed === after.completed
  )
}

/** The status with which the operation must be refused; undefined if it must succeed. */
function refusalOf({ request, answer }: Operation, state: TaskState): number | undefined {
  if (request.kind === 'create') return undefined
  if (state.is !== 'there') return 404
  if (request.kind !== 'update' || request.version === undefined) return undefined
  // The tag in the answer is read after the change has failed, so it may be newer.
  return request.version !== state.version && (answer?.version ?? 0) >= state.version ? 412 : undefined
}

function shows(
  status: 'all' | 'pending' | 'completed',
  seen: SeenTask | undefined,
  state: TaskState
): boolean {
  const belongs = state.is === 'there' && (status === 'all' || state.completed === (status === 'completed'))
  if (!seen) return !belongs
  return belongs && seen.title === state.title && seen.completed === state.completed
}
