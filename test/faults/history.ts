/** The request of a client. A task's `mark` is its description: it is unique, set at creation and never changed. */
export type Request =
  | { kind: 'create'; mark: string; title: string; completed: boolean; key?: string }
  | { kind: 'update'; id: string; title: string; version?: number }
  | { kind: 'toggle'; id: string }
  | { kind: 'set'; id: string; completed: boolean }
  | { kind: 'delete'; id: string }
  | { kind: 'get'; id: string }
  | { kind: 'list'; status: 'all' | 'pending' | 'completed' }

/** A task as an answer shows it. */
export interface SeenTask {
  id: string
  mark: string
  title: string
  completed: boolean
}

export interface Answer {
  status: number
  /** The `code` of an error. */
  code?: string
  hasRetryAfter?: boolean
  /** From `ETag`. */
  version?: number
  /** From `Idempotency-Replayed`. */
  replayed?: boolean
  task?: SeenTask
  tasks?: SeenTask[]
}

/** One request and its result. Times are monotonic, in milliseconds. */
export interface Operation {
  user: string
  client: number
  replica: number
  request: Request
  began: number
  /** The time when the answer was complete, or the connection had failed. */
  ended: number
  /** Undefined if the connection failed. */
  answer?: Answer
}

/** Tells from an answer if its request was executed, was not, or may be executed even later. */
export type Fate = 'done' | 'refused' | 'unknown'

export function fateOf({ answer }: Operation): Fate {
  if (answer === undefined || answer.status >= 500) return 'unknown'
  return answer.status < 300 ? 'done' : 'refused'
}

export const isWrite = ({ request }: Operation) => request.kind !== 'get' && request.kind !== 'list'

/** One line for a person. */
export function describe({ client, replica, request, began, ended, answer }: Operation): string {
  const { kind, ...what } = request
  const { tasks, ...said } = answer ?? { status: 'no answer' }
  const list = tasks && ` ${tasks.length} tasks`
  return `${began.toFixed(0)}–${ended.toFixed(0)} ms, client ${client} at replica ${replica}: ${kind} ${JSON.stringify(what)} → ${JSON.stringify(said)}${list ?? ''}`
}
