/** The database cannot be reached, does not answer in time, or has too much to do. */
export class DatabaseUnavailable extends Error {
  override name = 'DatabaseUnavailable'

  /** @param options why, for the log */
  constructor(options?: ErrorOptions) {
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
