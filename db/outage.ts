/**
 * Codes that say "not now" rather than "wrong": the driver's own, the system's, and PostgreSQL's classes 08
 * (connection), 53 (out of connections, memory or disk), 57P (shutting down), with 25006 (read-only: this server is
 * no longer the primary), 57014 (cancelled), 40P01, 40001 and 55P03 (in the way of another transaction) and 58030 (the
 * disk failed).
 */
const OUTAGE =
  /^(08...|53...|57P..|57014|40P01|40001|55P03|58030|25006|CONNECT\w*|ECONN\w*|ENOTFOUND|EAI_AGAIN|EHOST\w+|ENET\w+|EPIPE|ETIMEDOUT|ENOENT)$/

const READ_ONLY = '25006'

/** Whether an error says that the database cannot do it now, not that it was asked for something wrong. */
export const isOutage = (error: unknown) => OUTAGE.test(codeOf(error))

/** Whether this server takes no changes: it is no longer the primary, and its connections would not notice when it is again. */
export const isReadOnly = (error: unknown) => codeOf(error) === READ_ONLY

const STOPPED = /^(57014|40P01|40001|55P03)$/
const UNFINISHED = '25P02'

/** Whether a statement was stopped for the sake of others, so that it may have more luck later. */
export const isStopped = (error: unknown) => STOPPED.test(codeOf(error))

/** Whether a statement was not even tried because one before it in its transaction has failed. */
export const isUnfinished = (error: unknown) => codeOf(error) === UNFINISHED

/** What the database or its driver said; drizzle wraps it in an error whose message holds the statement and its values. */
export function causeOf(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? causeOf(error.cause) : error
}

function codeOf(error: unknown): string {
  const { code } = Object(causeOf(error))
  return typeof code === 'string' ? code : ''
}
