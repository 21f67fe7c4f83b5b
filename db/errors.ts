/**
 * Why the database cannot do something now. `connection`: none can be made, it was lost, or PostgreSQL refused.
 * `timeout`: no answer in time. `overload`: too much waits already. `standby`: committed, but the synchronous standby
 * has not confirmed it. `closing`: the service stops.
 */
export type OutageReason = 'connection' | 'timeout' | 'overload' | 'standby' | 'closing'

/** The database cannot be reached, does not answer in time, or has too much to do. */
export class DatabaseUnavailable extends Error {
  override name = 'DatabaseUnavailable'

  /** @param options what it said, for the log */
  constructor(
    readonly reason: OutageReason,
    options?: ErrorOptions
  ) {
    super('the database is unavailable', options)
  }
}

/** A task was already created with this idempotency key, from other values. */
export class IdempotencyKeyConflict extends Error {
  override name = 'IdempotencyKeyConflict'
}

/** A reason not to start that the operator can mend. The message is one line and holds no secret. */
export class StartError extends Error {
  override name = 'StartError'
}
