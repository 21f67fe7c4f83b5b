import postgres from 'postgres'
import type { Rows } from '../driver.js'
import { StartError } from '../errors.js'
import { isServerError } from '../sqlstate.js'
import { toTimestamp } from '../timestamp.js'
import type { Connection } from './deadline-session.js'
import { connectSocket, noAnswerInTime, requestCancel } from './socket.js'
import type { DatabaseAddress, PostgresTarget } from './url.js'

/** The type's number in PostgreSQL's catalogue. */
const TIMESTAMPTZ = 1184

/** Default timeout of an attempt to connect, and of the login and the first statements after it, in milliseconds. */
const CONNECT_MS = 3_000
/** Timeout of a cancel request, in milliseconds. */
const CANCEL_MS = 2_000
const TOO_MANY_CONNECTIONS = '53300'

/** One connection that is open and logged in. It never reconnects. */
export interface Client extends Connection {
  sql: postgres.Sql
  isStandby: boolean
  /** True if a pooler, a proxy or a network that changes ports is in between. */
  isRelayed: boolean
  /** True if the server refuses writes: it is a standby, or set to read-only. */
  isReadOnly: boolean
  /** The time from a trivial statement to its answer, in milliseconds. */
  roundTripMs: number
}

export interface ConnectionEvents {
  onClosed(): void
  /** PostgreSQL has committed the current transaction without confirmation by the synchronous standby. */
  onStandbyUnconfirmed(): void
}

/**
 * Connects with postgres.js, with one connection in each of its clients. This file has all workarounds for the driver.
 * They are for the exact version in package.json:
 *
 * - The driver reconnects by itself, and sends the rest of a transaction on the new connection. Here a client gets one
 *   socket, and a request for another fails (porsager/postgres issues 1193 and 1208).
 * - It leaves sockets without error listeners, and checks certificates for an IP address against "localhost" (socket.ts).
 * - Its cancel() drops a promise whose rejection ends the process. It also marks queued statements as cancelled, and their
 *   answers go to the next statements. socket.ts sends cancel requests instead.
 * - After an error it appends the next answer's rows to those of the failed one: its row index goes on. `collect` uses
 *   no index.
 * - It retries a statement with a stale plan. While it waits for the description it sends other statements, and their rows
 *   go to the wrong ones, so to other users. `Request` fails instead.
 * - A transaction goes on after its connection closed, and its next statement ends the process. `terminate` makes the driver
 *   refuse it.
 * - By default it asks each new connection for array types, and a failure of that query ends the process.
 * - It asks for the types of a statement's values before it sends them, and PgBouncer loses track. `PooledRequest` prevents
 *   it.
 * - Its class of a statement makes each garbage collection copy the rows of statements that have ended (`Request`).
 *
 * @throws the error of the system, of TLS or of PostgreSQL
 */
export async function openClient(
  target: PostgresTarget,
  address: DatabaseAddress,
  events?: ConnectionEvents
): Promise<Client> {
  const milliseconds = target.connectTimeoutMs ?? CONNECT_MS
  const wire = await connectSocket(target, address, milliseconds)
  let isUsed = false
  let connection: { terminate(): void } | undefined
  const sql = postgres({
    user: target.user,
    // A function, because the driver replaces an empty text by PGPASSWORD.
    password: () => target.password,
    database: target.database,
    host: 'host' in address ? address.host : 'localhost',
    max: 1,
    ssl: false,
    connect_timeout: milliseconds / 1000,
    max_lifetime: 0,
    fetch_types: false,
    onnotice: ({ routine }) => {
      // Only this notice tells that a cancelled commit did not wait for its standby.
      if (routine === 'SyncRepWaitForLSN') events?.onStandbyUnconfirmed()
    },
    onclose: () => {
      connection?.terminate()
      // Otherwise the driver would look for another connection, and `end` would wait for the statement that was lost.
      void sql.end({ timeout: 0 })
      events?.onClosed()
    },
    // PgBouncer refuses other parameters, for instance statement_timeout. DateStyle is spelt as the server reports it.
    // Otherwise PgBouncer before 1.22 sets it again in each transaction (pgbouncer issue 879).
    connection: { application_name: 'tasks-api', ...target.settings, TimeZone: 'UTC', DateStyle: 'ISO, MDY' },
    types: {
      timestamp: { to: TIMESTAMPTZ, from: [TIMESTAMPTZ], parse: toTimestamp, serialize: String }
    },
    // The driver documents this option, but its types lack it.
    ...{
      socket: () => {
        // If the socket closed before the driver added its listeners, the driver would wait for its timeout.
        if (isUsed || wire.socket.destroyed) throw new Error('the server closed the connection')
        isUsed = true
        return wire.socket
      }
    }
  })
  // Nothing is sent here: the driver runs a query only when something waits for it.
  const { handler: execute } = sql.unsafe('') as unknown as { handler(request: Request): void }
  let isDirect = false
  const send = <T>(text: string, parameters: unknown[], cursor?: Cursor) =>
    new Promise<T>((resolve, reject) => {
      // A pooler may run the next statement on another server connection, which does not know the name.
      const request = isDirect
        ? new Request(text, parameters, true, resolve, reject, cursor)
        : new PooledRequest(text, parameters, false, resolve, reject, cursor)
      execute(request)
    })
  const destroy = () => {
    void sql.end({ timeout: 0 })
    wire.close()
  }
  // The driver has a timeout for the login only.
  const timer = setTimeout(() => wire.socket.destroy(noAnswerInTime()), milliseconds)
  try {
    if (sql.options.target_session_attrs) throw new Error('PGTARGETSESSIONATTRS must not be set')
    // Without a name, because it is not known yet whether a pooler is in between.
    const rows = await sql`
      select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as read_only,
        pg_backend_pid() as pid, inet_client_port() as client_port, current_setting('port') as port,
        current_setting('DateStyle') as date_style`.simple()
    const { pid, secret } = rows.state
    const [row] = rows
    // toTimestamp reads no other style. Days and months could be mixed up.
    if (!row?.date_style.startsWith('ISO')) {
      throw new Error(`a pooler has dropped the setting DateStyle: it is ${row?.date_style} instead of ISO`)
    }
    // A pooler sends process ids of its own.
    isDirect = row?.pid === pid
    const isRelayed =
      'path' in address ? !address.path.endsWith(`.${row?.port}`) : row?.client_port !== wire.socket.localPort
    const sentAt = performance.now()
    // The driver calls `onexecute` with its connection.
    const onexecute = (own: typeof connection) => {
      connection = own
      return true
    }
    await sql.unsafe('select 1', [], { onexecute } as object)
    return {
      sql,
      address,
      // PgBouncer passes the server connection on at the end of an answer. It may already have sent a part of the next
      // statement there (its issue 759).
      canPipeline: isDirect,
      isRelayed,
      isStandby: row?.standby,
      isReadOnly: row?.read_only,
      roundTripMs: performance.now() - sentAt,
      query: (text, parameters) => send<Rows>(text, parameters),
      cursor: (text, parameters, size, onRows) => send(text, parameters, { size, onRows }),
      async cancel() {
        if (isDirect) {
          try {
            return await cancelUnlessCommitting(target, address, pid)
          } catch (error) {
            // With too many connections the check is not possible. The statement must be cancelled all the same.
            if ((error as { code?: string }).code !== TOO_MANY_CONNECTIONS) return false
          }
        }
        await requestCancel(target, address, { pid, secret }, CANCEL_MS)
        return false
      },
      destroy,
      reset() {
        wire.reset()
        destroy()
      },
      async end(milliseconds) {
        // The driver's own timeout comes later, because it shuts the socket down. Then no reset is possible.
        const timer = setTimeout(wire.reset, milliseconds)
        await sql.end({ timeout: (milliseconds + 50) / 1000 })
        clearTimeout(timer)
        destroy()
      }
    }
  } catch (error) {
    destroy()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Cancels a backend's statement, unless the backend waits for its synchronous standby. A cancel request would end that
 * wait: other clients could read the commit, and it would be lost if the standby became the primary.
 *
 * @returns true if it waits for its standby
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

/**
 * The settings that Pgpool-II must have. With the others, a read may lack the latest writes. In the modes `raw` and `slony`,
 * version 4.3 mixed up transactions whose statements are sent together, and acknowledged writes were lost.
 */
const PGPOOL = {
  load_balance_mode: 'off',
  memory_cache_enabled: 'off',
  backend_clustering_mode: 'streaming_replication'
}

/** @throws StartError if a pooler is in between that must have other settings, or the error of a connection that failed */
export async function checkPooler(client: Client): Promise<void> {
  if (!client.canPipeline) await checkTransactions(client)
  if (client.isRelayed) await checkPgpool(client)
}

/** In its statement mode, PgBouncer closes the connection at `begin`. */
async function checkTransactions({ sql }: Client): Promise<void> {
  try {
    await sql.unsafe('begin').simple()
    await sql.unsafe('commit').simple()
  } catch (error) {
    throw new StartError(
      `no transaction is possible; a pooler must be in session mode or transaction mode (${(error as Error).message})`
    )
  }
}

/** PostgreSQL logs a syntax error for these questions, so only connections that are relayed are asked. */
async function checkPgpool({ sql }: Client): Promise<void> {
  for (const [name, expected] of Object.entries(PGPOOL)) {
    const [row] = await sql
      .unsafe(`pgpool show ${name}`)
      .simple()
      .catch((error) => {
        if (isServerError(error)) return []
        throw error
      })
    // Pgpool-II before 4.2 has no clustering mode.
    if (row === undefined && name === 'load_balance_mode') return
    if (row?.[name] !== expected) throw new StartError(`Pgpool-II must have ${name} = ${expected}`)
  }
}

interface Cursor {
  size: number
  onRows: (rows: unknown[]) => Promise<number>
}

/**
 * A statement as the driver's connection.js reads and changes it.
 *
 * The driver's own class `Query` assigns two functions to its properties. V8 allocates such functions among the objects
 * that live long. So each statement, its values and its rows survive until the next full garbage collection.
 */
class Request {
  readonly strings: [string]
  readonly tagged = false
  readonly options: { prepare: boolean; simple: boolean }
  /** For the driver's stack trace of an error. */
  readonly origin = ''
  /** The driver reads this for each batch. */
  cursorRows: number | undefined
  readonly cursorFn: ((rows: unknown[]) => Promise<void>) | undefined
  readonly forEachFn: typeof collect | undefined
  active = false
  /** True makes the driver's execute() ignore it. */
  cancelled = false
  state: unknown = null
  statement: unknown = null
  parameters: unknown[] | null = null
  string = ''
  signature: unknown = ''
  prepare = false
  prepared = false

  /** @param prepare true if the server connection keeps the prepared statement */
  constructor(
    text: string,
    readonly args: unknown[],
    prepare: boolean,
    readonly resolve: (rows: never) => void,
    readonly reject: (error: unknown) => void,
    cursor: Cursor | undefined
  ) {
    this.strings = [text]
    // Without values the simple protocol is enough, which has no cursors.
    this.options = { prepare, simple: args.length === 0 && cursor === undefined }
    if (cursor === undefined) this.forEachFn = collect
    else {
      this.cursorRows = cursor.size
      this.cursorFn = async (rows) => {
        this.cursorRows = await cursor.onRows(rows)
      }
    }
  }

  /**
   * The driver's retry() sets this, and then calls execute(), which ignores a cancelled statement. deadline-session.ts
   * sends the statement as a new one.
   */
  set retried(error: unknown) {
    this.cancelled = true
    this.reject(error)
  }
}

/**
 * Makes the driver send a statement together with its values. Otherwise it first asks for the types of the values, without
 * a Sync. If an earlier statement ends now, PgBouncer takes the server connection for idle, and closes it or passes it on.
 * The answer is lost (pgbouncer issue 759).
 */
class PooledRequest extends Request {
  get describeFirst(): false {
    return false
  }

  set describeFirst(_value: unknown) {}
}

const collect = (row: unknown, rows: unknown) => (rows as unknown[]).push(row)
