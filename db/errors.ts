/**
 * - `connection`: no connection can be opened, it was lost, or PostgreSQL refused it or the statement
 * - `timeout`: no answer in time
 * - `overload`: too many statements are queued
 * - `standby`: committed, but not confirmed by the synchronous standby
 * - `closing`: the service stops
 */
export const OUTAGE_REASONS = ['connection', 'timeout', 'overload', 'standby', 'closing'] as const

/** The database cannot be reached, does not answer in time, or is overloaded. */
export class DatabaseUnavailable extends Error {
  override name = 'DatabaseUnavailable'

  /** @param options the database's own error as `cause`, for the log */
  constructor(
    readonly reason: (typeof OUTAGE_REASONS)[number],
    options?: ErrorOptions
  ) {
    super('the database is unavailable', options)
  }
}

/** This idempotency key was already used to create a task with other values. */
export class IdempotencyKeyConflict extends Error {
  override name = 'IdempotencyKeyConflict'
}

/** A mistake in the configuration or the environment, which the operator can correct. The message is one line without secrets. */
export class StartError extends Error {
  override name = 'StartError'
}
