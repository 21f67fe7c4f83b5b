/** What a client asked for. A task's `mark` is its description: unique, given at its creation and never changed. */
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

/** One request and what became of it. Times are monotonic, in milliseconds. */
export interface Operation {
  user: string
  client: number
  replica: number
  request: Request
  began: number
  /** When the whole answer was there, or the connection had failed. */
  ended: number
  /** None when the connection failed. */
  answer?: Answer
}

/** What an answer says of its request: it was carried out; it was not; it may have been, or may yet be. */
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
