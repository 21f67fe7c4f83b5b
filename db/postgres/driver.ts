import postgres from 'postgres'
import type { Rows } from '../driver.js'
import { toTimestamp } from '../timestamp.js'
import type { Connection } from './session.js'
import { connectSocket, requestCancel } from './socket.js'
import type { DatabaseAddress, PostgresTarget } from './url.js'

/** The type's number in PostgreSQL's catalogue. */
const TIMESTAMPTZ = 1184

/** How long one attempt to connect may take, unless the URL says otherwise. */
const CONNECT_MS = 3_000
/** How long a cancel request may take. */
const CANCEL_MS = 2_000
const TOO_MANY_CONNECTIONS = '53300'

/** One connection that is made and logged in. It never connects again. */
export interface Client extends Connection {
  sql: postgres.Sql
  isStandby: boolean
  /** Whether the server takes no writes: it is a standby, or is told to be read-only. */
  isReadOnly: boolean
  /** The time from a trivial statement to its answer, in milliseconds. */
  roundTripMs: number
}

export interface ConnectionEvents {
  onClosed(): void
  /** PostgreSQL has committed what it is working on, without its synchronous standby. */
  onStandbyUnconfirmed(): void
}

/**
 * Connects with postgres.js, one connection for each of its clients. Everything that the service does about the driver's
 * own ways is in this file, and holds for the exact version in package.json:
 *
 * - It connects again by itself, and sends what is left of a transaction on the new connection. Here a client gets one
 *   socket, and asking for another fails (issues 1193 and 1208).
 * - It leaves sockets without error listeners, and knows IP addresses as "localhost" in certificates (socket.ts).
 * - Its own cancel() drops a promise whose rejection ends the process, and marks statements that are not running yet as
 *   cancelled, so that their answers go to the next ones. Cancel requests are sent by socket.ts.
 * - After an error it puts the next answer's rows behind those of the failed one. `collect` does not count rows.
 * - It tries a statement again whose plan is stale, and while it waits for the description it lets other statements pass,
 *   whose rows then go to the wrong ones: to another user. `neverRetry` makes such a statement fail instead.
 * - Unless told not to, it asks each new connection for array types, and a failure of that ends the process.
 *
 * @throws the error of the system, of TLS or of PostgreSQL that made it fail
 */
export async function openClient(
  target: PostgresTarget,
  address: DatabaseAddress,
  events?: ConnectionEvents
): Promise<Client> {
  const milliseconds = target.connectTimeoutMs ?? CONNECT_MS
  const wire = await connectSocket(target, address, milliseconds)
  let isUsed = false
  const sql = postgres({
    user: target.user,
    // Instead of an empty text the driver would take PGPASSWORD.
    password: () => target.password,
    database: target.database,
    host: 'host' in address ? address.host : 'localhost',
    max: 1,
    ssl: false,
    connect_timeout: milliseconds / 1000,
    max_lifetime: 0,
    fetch_types: false,
    onnotice: ({ routine }) => {
      // This notice is the only sign that a cancelled commit did not wait for its standby.
      if (routine === 'SyncRepWaitForLSN') events?.onStandbyUnconfirmed()
    },
    onclose: () => events?.onClosed(),
    // PgBouncer refuses other parameters, for instance statement_timeout.
    connection: { application_name: 'tasks-api', ...target.settings, TimeZone: 'UTC', DateStyle: 'ISO' },
    types: {
      timestamp: { to: TIMESTAMPTZ, from: [TIMESTAMPTZ], parse: toTimestamp, serialize: String }
    },
    // In its documentation, not in its types.
    ...{
      socket: () => {
        // A socket that has closed before the driver listens to it would only time out.
        if (isUsed || wire.socket.destroyed) throw new Error('the server closed the connection')
        isUsed = true
        return wire.socket
      }
    }
  })
  neverRetry(sql)
  const request = (text: string, parameters: unknown[]) =>
    Object.assign(sql.unsafe(text, parameters as string[], { prepare: true }), { isRequest: true })
  const destroy = () => {
    void sql.end({ timeout: 0 })
    wire.reset()
  }
  try {
    if (sql.options.target_session_attrs) throw new Error('PGTARGETSESSIONATTRS must not be set')
    const rows = await sql`
      select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as read_only,
        pg_backend_pid() as pid`
    const { pid, secret } = rows.state
    const [row] = rows
    // A pooler has numbers of its own.
    const isDirect = row?.pid === pid
    const sentAt = performance.now()
    await sql`select 1`.simple()
    return {
      sql,
      address,
      isStandby: row?.standby,
      isReadOnly: row?.read_only,
      roundTripMs: performance.now() - sentAt,
      query: (text, parameters) => request(text, parameters).forEach(collect) as unknown as Promise<Rows>,
      cursor: (text, parameters, size, onRows) => request(text, parameters).cursor(size, onRows),
      async cancel() {
        if (isDirect) {
          try {
            return await cancelUnlessCommitting(target, address, pid)
          } catch (error) {
            // Without this check, a connection that fails would be left to a server that has too many.
            if ((error as { code?: string }).code !== TOO_MANY_CONNECTIONS) return false
          }
        }
        await requestCancel(target, address, { pid, secret }, CANCEL_MS)
        return false
      },
      destroy,
      async end(milliseconds) {
        await sql.end({ timeout: milliseconds / 1000 })
        destroy()
      }
    }
  } catch (error) {
    destroy()
    throw error
  }
}

/**
 * Cancels what a backend is running, unless it waits for its synchronous standby. That wait ends by a cancel request with
 * a commit that others can read, and that is lost when the standby becomes the primary.
 *
 * @returns whether it waits for its standby
 */
async function cancelUnlessCommitting(
  target: PostgresTarget,
  address: DatabaseAddress,
  pid: number
): Promise<boolean> {
  const client = await openClient({ ...target, connectTimeoutMs: CANCEL_MS }, address)
  const timer = setTimeout(client.destroy, CANCEL_MS)
  try {
    const [row] = await client.sql`
      select wait_event is not distinct from 'SyncRep' as is_committing,
        case when wait_event is distinct from 'SyncRep' then pg_cancel_backend(pid) end
      from pg_stat_activity where pid = ${pid}`
    return row?.is_committing ?? false
  } finally {
    clearTimeout(timer)
    client.destroy()
  }
}

/** The fields of a query that retry() and execute() in the driver's connection.js use. */
interface Retriable {
  /** A mark of our own, because other clients of the driver may be in the same process. */
  isRequest?: boolean
  cancelled: unknown
  reject(error: unknown): void
}

/**
 * Makes the driver's retry() do nothing but fail the statement: it marks the query as retried and sends it again, which
 * execute() leaves for a query that was cancelled. session.ts sends it again as a new one.
 */
function neverRetry(sql: postgres.Sql): void {
  const prototype = Object.getPrototypeOf(sql.unsafe(''))
  if (Object.hasOwn(prototype, 'retried')) return
  Object.defineProperty(prototype, 'retried', {
    set(this: Retriable, error: unknown) {
      if (!this.isRequest) return Object.defineProperty(this, 'retried', { value: error })
      this.cancelled = true
      this.reject(error)
    }
  })
}

const collect = (row: unknown, rows: unknown) => (rows as unknown[]).push(row)
