/**
 * PostgreSQL's codes for bugs in this service:
 *
 * - 21, 22, 23: the result's form, a value, a constraint
 * - 24, 25001, 25P01, 34: the order of statements
 * - 42601 and the like, 54: a statement's form
 *
 * A missing table, column or right is class 42 too. It is a fault of the database, not a bug: our statements work on the
 * schema that the migrations create.
 */
const POSTGRES_MISTAKE =
  /^(2[1-4]...|25[0P]01|34...|54...|42601|42602|42622|42702|42725|42803|42804|42846|42P02|42P08|42P18|42P2\d)$/

/** The codes of postgres.js for wrong calls. */
const DRIVER_MISTAKE =
  /^(COPY_IN_PROGRESS|MAX_PARAMETERS_EXCEEDED|NOT_TAGGED_CALL|UNDEFINED_VALUE|UNSAFE_TRANSACTION)$/

/**
 * True if an error is the database's: it cannot be reached, refuses us, or has another schema. False if the error is a bug
 * in our statements or code.
 */
export function isOutage(error: unknown): boolean {
  const cause = causeOf(error)
  // Some of Node's TypeErrors and RangeErrors have a code. They are wrong calls.
  if (cause instanceof TypeError || cause instanceof RangeError) return false
  const code = causeCodeOf(cause)
  return code !== '' && !POSTGRES_MISTAKE.test(code) && !DRIVER_MISTAKE.test(code)
}

/** True if PostgreSQL or a pooler sent the error. All other errors come from the driver or the network. */
export const isServerError = (error: unknown) => Object(causeOf(error)).name === 'PostgresError'

export const INSUFFICIENT_PRIVILEGE = '42501'

export const READ_ONLY = '25006'

/** No schema of `search_path` exists, or the role may use none of them. */
export const NO_SCHEMA = '3F000'

/** True if the server refuses writes. It is no longer the primary, and connections stay read-only if it becomes one again. */
export const isReadOnly = (error: unknown) => causeCodeOf(error) === READ_ONLY

const STALE_PLAN = /^(0A000|26000)$/
const STALE_PLAN_ROUTINES = /^(RevalidateCachedQuery|FetchPreparedStatement)$/

/** True if a prepared statement no longer fits the table, or is gone. It was not executed. */
export function isStalePlan(error: unknown): boolean {
  const { routine } = Object(causeOf(error))
  return STALE_PLAN.test(causeCodeOf(error)) && STALE_PLAN_ROUTINES.test(routine)
}

const STOPPED = /^(57014|40P01|40001|55P03)$/
const UNFINISHED = '25P02'

/** True if PostgreSQL stopped a statement because of another one. A retry may succeed. */
export const isStopped = (error: unknown) => STOPPED.test(causeCodeOf(error))

/** True if PostgreSQL rolled a transaction back because of a concurrent one. */
export const isConflict = (error: unknown) => /^40(001|P01)$/.test(causeCodeOf(error))

/** True if a statement was not executed because an earlier one in its transaction failed. */
export const isUnfinished = (error: unknown) => causeCodeOf(error) === UNFINISHED

/** Returns the error of the database or the driver. Drizzle wraps it in one whose message contains the statement's values. */
export function causeOf(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? causeOf(error.cause) : error
}

function causeCodeOf(error: unknown): string {
  const { code } = Object(causeOf(error))
  return typeof code === 'string' ? code : ''
}
