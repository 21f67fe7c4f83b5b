/**
 * PostgreSQL's codes for what can only be a mistake of ours: a value (22), a constraint (23), the form of a result (21),
 * or of a statement (42601 and the like, 54), or the order of statements (24, 25001, 25P01, 34). A missing table, column
 * or right is class 42 too, but that is a state of the database: each of our statements works on the schema that the
 * migrations make.
 */
const POSTGRES_MISTAKE =
  /^(2[1-4]...|25[0P]01|34...|54...|42601|42602|42622|42702|42725|42803|42804|42846|42P02|42P08|42P18|42P2\d)$/

/** postgres.js has its own codes for being called wrongly. */
const DRIVER_MISTAKE =
  /^(COPY_IN_PROGRESS|MAX_PARAMETERS_EXCEEDED|NOT_TAGGED_CALL|UNDEFINED_VALUE|UNSAFE_TRANSACTION)$/

/**
 * Whether an error says that the database cannot do it now, whatever the reason: it cannot be reached, does not let us
 * in, or is not as we need it. Only what our own statements or code did wrong is no outage.
 */
export function isOutage(error: unknown): boolean {
  const cause = causeOf(error)
  // Node gives a code to some of its TypeErrors and RangeErrors, and those are calls that are wrong.
  if (cause instanceof TypeError || cause instanceof RangeError) return false
  const code = causeCodeOf(cause)
  return code !== '' && !POSTGRES_MISTAKE.test(code) && !DRIVER_MISTAKE.test(code)
}

const READ_ONLY = '25006'

/** Whether this server takes no changes: it is no longer the primary, and its connections would not notice when it is again. */
export const isReadOnly = (error: unknown) => causeCodeOf(error) === READ_ONLY

const STALE_PLAN = /^(0A000|26000)$/
const STALE_PLAN_ROUTINES = /^(RevalidateCachedQuery|FetchPreparedStatement)$/

/** Whether a prepared statement no longer fits the table, or is gone. It was not executed. */
export function isStalePlan(error: unknown): boolean {
  const { routine } = Object(causeOf(error))
  return STALE_PLAN.test(causeCodeOf(error)) && STALE_PLAN_ROUTINES.test(routine)
}

const STOPPED = /^(57014|40P01|40001|55P03)$/
const UNFINISHED = '25P02'

/** Whether a statement was stopped for the sake of others, so that it may have more luck later. */
export const isStopped = (error: unknown) => STOPPED.test(causeCodeOf(error))

/** Whether a statement was not even tried because one before it in its transaction has failed. */
export const isUnfinished = (error: unknown) => causeCodeOf(error) === UNFINISHED

/** What the database or its driver said; drizzle wraps it in an error whose message holds the statement and its values. */
export function causeOf(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? causeOf(error.cause) : error
}

function causeCodeOf(error: unknown): string {
  const { code } = Object(causeOf(error))
  return typeof code === 'string' ? code : ''
}
