import type { Task } from './api'

/** A change that the user sees before the service has answered. */
export type Change =
  | { kind: 'create'; task: Task }
  | { kind: 'update'; id: string; fields: Partial<Task> }
  | { kind: 'delete'; id: string }

export interface State {
  /** The service's last list, newest first. Undefined until it has arrived. */
  saved: Task[] | undefined
  pending: Change[]
}

export type Action =
  | { type: 'loaded'; tasks: Task[] }
  | { type: 'changed'; change: Change }
  /** The change was made, and this is the task now. */
  | { type: 'confirmed'; change: Change; task: Task | undefined }
  /** The change was refused. It is removed from `pending`, so that the user sees the saved task again. */
  | { type: 'refused'; change: Change }

export function reduce(state: State, action: Action): State {
  switch (action.type) {
    case 'loaded':
      return { ...state, saved: action.tasks }
    case 'changed':
      return { ...state, pending: [...state.pending, action.change] }
    case 'refused':
      return { ...state, pending: without(state.pending, action.change) }
    case 'confirmed':
      return {
        saved: state.saved && apply(state.saved, confirmed(action.change, action.task)),
        pending: without(state.pending, action.change)
      }
  }
}

/** The tasks as the user sees them. */
export const shown = ({ saved, pending }: State): Task[] | undefined => saved && pending.reduce(apply, saved)

/** The same change with the service's result. */
function confirmed(change: Change, task: Task | undefined): Change {
  if (!task) return change
  return change.kind === 'create' ? { kind: 'create', task } : { kind: 'update', id: task.id, fields: task }
}

function apply(tasks: Task[], change: Change): Task[] {
  switch (change.kind) {
    case 'create':
      return [change.task, ...tasks]
    case 'update':
      return tasks.map((task) => (task.id === change.id ? { ...task, ...change.fields } : task))
    case 'delete':
      return tasks.filter(({ id }) => id !== change.id)
  }
}

const without = (pending: Change[], change: Change) => pending.filter((other) => other !== change)
