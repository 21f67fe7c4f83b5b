import { EventEmitter } from 'node:events'

/** Why a connection to the database was closed. The first three are failures. */
export type ClosingReason = 'lost' | 'unresponsive' | 'read_only' | 'idle' | 'list' | 'closing'

/** What happens on the way to the database, for metrics and the log. Times are in milliseconds. */
export interface DatabaseEvents {
  /** A statement is sent after it waited so long for a connection: 0 when one had room. */
  sent: [waitedMs: number]
  /** A statement passed its deadline: while it waited for a connection, or after it was sent. */
  timedOut: [state: 'waiting' | 'sent']
  /** A cancel request was sent for a statement, because of its deadline, or because it holds up others. */
  cancelled: [reason: 'timeout' | 'lock']
  /** A shared transaction of so many writes ended. When it was undone, its writes are tried again. */
  shared: [writes: number, outcome: 'committed' | 'rolled back' | 'unknown']
  opened: []
  openFailed: [error: unknown]
  closed: [reason: ClosingReason]
}

export type DatabaseObservations = EventEmitter<DatabaseEvents>

export const observations = (): DatabaseObservations => new EventEmitter()

/** How things stand at this moment. */
export interface DatabaseFigures {
  connections: { idle: number; busy: number; opening: number }
  /** The most connections that requests may use. */
  maxConnections: number
  /** Statements and shared transactions that wait for a connection. */
  waiting: number
  /** Statements that were sent and are not answered. */
  sent: number
}
