import { EventEmitter } from 'node:events'

/** The first three are failures. */
export const CLOSING_REASONS = ['lost', 'unresponsive', 'read_only', 'idle', 'list', 'closing'] as const

export type ClosingReason = (typeof CLOSING_REASONS)[number]

/** Events for metrics and the log. Times are in milliseconds. */
interface DatabaseEvents {
  /** A statement was sent. `waitedMs` is its time in the queue: 0 if a connection was free. */
  sent: [waitedMs: number]
  /** A statement passed its deadline, in the queue or after it was sent. */
  timedOut: [state: 'waiting' | 'sent']
  /** A cancel request was sent: the statement passed its deadline, or others wait for its lock. */
  cancelled: [reason: 'timeout' | 'lock']
  /** A shared transaction ended. After a rollback its writes are retried. */
  shared: [writes: number, outcome: 'committed' | 'rolled back' | 'unknown']
  opened: []
  openFailed: []
  closed: [reason: ClosingReason]
}

export type DatabaseObservations = EventEmitter<DatabaseEvents>

export const observations = (): DatabaseObservations => new EventEmitter()

/** Current values, for gauges. */
export interface DatabaseFigures {
  connections: { idle: number; busy: number; opening: number }
  /** Maximum number of connections for requests. */
  maxConnections: number
  /** Statements and shared transactions that wait for a connection. */
  waiting: number
  /** Statements that were sent and have no answer yet. */
  sent: number
}
