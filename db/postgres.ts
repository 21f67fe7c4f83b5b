import { connect as dial, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ConnectionOptions } from 'node:tls'
import { types } from '@electric-sql/pglite'
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { StartError, Unavailable } from '../src/errors.js'
import type { Driver } from './driver.js'
import { Group } from './group.js'
import { toInstant } from './instant.js'
import { type Connection, Lane, type Rows, STATEMENT_MS } from './lane.js'
import { isOutage } from './outage.js'
import { type DatabaseAddress, type PostgresTarget, parseDatabaseUrl } from './postgres/url.js'

const CONNECT_MS = 3_000
/** Between two attempts to connect: postgres.js makes thousands a second where somebody hangs up at once. */
const REDIAL_MS = 100
/** When one connection is of no use the others may not be either; but not once for every statement that fails. */
const RENEW_MS = 1_000

/** For writes, each with one transaction under way. */
const WRITE_CONNECTIONS = 3
/** A lane that has owed an answer for longer than this has something slow at its head: reads take another one. */
const HELD_UP_MS = 10

/** Lists that may be streamed at once, each on a connection of its own. */
const MAX_STREAMS = 20
/** How many rows a batch of a stream has. */
const BATCH = 200
/** A connection that nobody streams from is closed after this time. */
const STREAM_IDLE_SECONDS = 10

/**
 * A PostgreSQL server, or what looks like one, such as PgBouncer.
 *
 * @param variable the setting that holds the URL
 * @throws StartError when the URL cannot be used
 */
export function openPostgres(url: string, variable: string): Driver {
  let target: PostgresTarget
  try {
    target = parseDatabaseUrl(url)
    connect(target)
  } catch (error) {
    throw new StartError(`${variable} cannot be used: ${(error as Error).message}`)
  }

  const open = (onUnsafe: () => void) => connect(target, onUnsafe)
  const reader = new Lane(open, renew)
  const writers = Array.from({ length: WRITE_CONNECTIONS }, () => new Lane(open, renew))
  const lanes = [reader, ...writers]
  const writes = new Group(writers)
  let renewed = Number.NEGATIVE_INFINITY

  function renew(): void {
    const now = performance.now()
    if (now < renewed + RENEW_MS) return
    renewed = now
    for (const lane of lanes) lane.renew()
  }

  const streams = openStreams(target)

  /** One connection as long as that is quick: what it has to send and receive then goes together. */
  function readerOf(now: number): Lane {
    for (const lane of lanes) if (!lane.isStuck && lane.heldUp(now) < HELD_UP_MS) return lane
    let best = reader
    for (const lane of lanes) {
      if (lane.isStuck === best.isStuck ? lane.waiting <= best.waiting : best.isStuck) best = lane
    }
    return best
  }

  return {
    read: (statement, now, milliseconds) => readerOf(now).run(statement, now, milliseconds),
    write: (statement, target, now, milliseconds) => writes.run(statement, target, now, milliseconds),
    waiting() {
      let waiting = writes.waiting
      for (const lane of lanes) waiting += lane.waiting
      return waiting
    },
    tick(now) {
      for (const lane of lanes) lane.tick(now)
      writes.tick(now)
    },
    stream: streams.stream,
    async administer(work) {
      // Not a connection of the requests: drizzle replaces the parsers of the client that it is given.
      const { client, end } = connect(target)
      try {
        return await work(drizzle(client))
      } finally {
        await end(STATEMENT_MS)
      }
    },
    async close(milliseconds) {
      writes.end()
      await Promise.all([...lanes.map((lane) => lane.end(milliseconds)), streams.close(milliseconds)])
    }
  }
}

/**
 * Connections for streams. Each serves one stream at a time, because a portal that is read batch by batch keeps its
 * connection until the end, however slowly the client takes it.
 */
function openStreams(target: PostgresTarget) {
  const idle: Postgres[] = []
  const busy = new Set<Postgres>()

  return {
    /** @throws Unavailable when too many are under way, or the database does not send the next batch in time */
    async *stream(text: string, parameters: unknown[]): AsyncGenerator<unknown[]> {
      if (busy.size >= MAX_STREAMS) throw new Unavailable()
      const connection = idle.pop() ?? connect(target, undefined, { idle_timeout: STREAM_IDLE_SECONDS })
      busy.add(connection)
      const query: Query = connection.client.unsafe(text, parameters as string[], { prepare: true })
      let complete = false
      try {
        yield* batchesOf(query)
        complete = true
      } catch (error) {
        throw isOutage(error) ? new Unavailable({ cause: error }) : error
      } finally {
        busy.delete(connection)
        if (complete) idle.push(connection)
        else {
          connection.cancel(query)
          connection.destroy()
        }
      }
    },
    async close(milliseconds: number) {
      await Promise.all([...idle, ...busy].map((connection) => connection.end(milliseconds)))
    }
  }
}

/**
 * The rows of a query, batch by batch, and the next one under way while one is used.
 *
 * Not the driver's own iterator: when the connection fails between two batches, that one ends as if there were no more.
 */
async function* batchesOf(query: Query): AsyncGenerator<unknown[]> {
  let batch: { rows: unknown[]; next: () => void } | undefined
  let ended = false
  let failure: unknown
  let wake = () => {}
  query
    .cursor(BATCH, (rows) => {
      return new Promise<void>((next) => {
        batch = { rows, next }
        wake()
      })
    })
    .then(
      () => {
        ended = true
      },
      (error) => {
        failure = error
      }
    )
    .then(() => wake())

  for (;;) {
    if (batch === undefined && !ended && failure === undefined) {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Unavailable()), STATEMENT_MS)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    if (failure !== undefined) throw failure
    if (batch === undefined) return
    const { rows, next }: { rows: unknown[]; next: () => void } = batch
    batch = undefined
    next()
    yield rows
  }
}

type Query = postgres.PendingQuery<postgres.Row[]>

/**
 * The driver's own way of collecting rows begins an answer where the one before it has failed, and leaves the places up to
 * there empty.
 */
const collect = (row: unknown, rows: unknown) => (rows as unknown[]).push(row)

interface Postgres extends Connection {
  client: postgres.Sql
}

/** What postgres.js knows of a query, and its types do not. */
interface Running {
  /** Whether the database is working on it: those sent before it have been answered. */
  active: boolean
  canceller: ((query: Running) => Promise<unknown>) | null
}

/** @param onUnsafe called when what the database works on is done, but not where it should be before it is answered */
function connect(target: PostgresTarget, onUnsafe = () => {}, options?: { idle_timeout: number }): Postgres {
  const { addresses, tls } = target
  let socket: Socket | undefined
  let destroyed = false
  let dialled = Number.NEGATIVE_INFINITY
  let at = 0
  let session = 0
  /** Whether the socket that is asked for carries a request to cancel, and not this connection. */
  let cancelling = false

  /** Empty for a Unix socket. */
  const host = () => {
    const address = addresses[at] as DatabaseAddress
    return 'host' in address ? address.host : ''
  }
  // The driver takes one set of options, before it is known which host they are for.
  const ssl: ConnectionOptions | 'prefer' | undefined = tls?.required
    ? {
        ...tls.optionsFor(host()),
        get servername() {
          return tls.optionsFor(host()).servername as string
        },
        checkServerIdentity: (name, certificate) =>
          tls.optionsFor(host()).checkServerIdentity?.(name, certificate)
      }
    : tls && 'prefer'

  const client = postgres({
    ...options,
    user: target.user,
    password: target.password,
    database: target.database,
    // Only for its messages, and only one: with more it takes the first statement of a connection that is lost for
    // answered, without rows.
    host: host() || 'localhost',
    ssl: ssl ?? false,
    ...(tls?.direct && { sslnegotiation: 'direct' }),
    max: 1,
    connect_timeout: (target.connectTimeoutMs ?? CONNECT_MS) / 1000,
    fetch_types: false,
    onnotice: ({ routine }) => {
      // A commit that was told to stop does not wait for the standby that it should wait for, and says so like this only.
      if (routine === 'SyncRepWaitForLSN') onUnsafe()
    },
    // Only parameters that PgBouncer accepts: it refuses, for instance, statement_timeout here.
    connection: { application_name: 'tasks-api', ...target.settings, TimeZone: 'UTC', DateStyle: 'ISO' },
    types: {
      instant: { to: types.TIMESTAMPTZ, from: [types.TIMESTAMPTZ], parse: toInstant, serialize: String },
      // A statement that it tries once more, for a new plan, has its parameters made into text twice.
      bool: {
        to: types.BOOL,
        from: [types.BOOL],
        parse: (text: string) => text === 't',
        serialize: (value: unknown) => (value === true || value === 't' ? 't' : 'f')
      }
    },
    // Not in its types, but in its documentation.
    ...{ socket: open }
  })

  // With these it asks something of its own on each new connection, and a failure of that ends the process.
  if (client.options.target_session_attrs) throw new Error('PGTARGETSESSIONATTRS must not be set')

  async function open(): Promise<Socket> {
    const make = () => {
      const address = addresses[at] as DatabaseAddress
      if ('path' in address) return dial(address)
      return Object.assign(dial({ ...address, noDelay: true }), { host: address.host })
    }
    // From the server of the connection, where there is more than one.
    if (cancelling) return make()
    const wait = dialled + REDIAL_MS - performance.now()
    if (wait > 0) await sleep(wait)
    if (destroyed)
      throw Object.assign(new Error('the connection was given up'), { code: 'CONNECTION_DESTROYED' })
    dialled = performance.now()
    at = session++ % addresses.length
    socket = make()
    return socket
  }

  return {
    client,
    session: () => session,
    query: (text, parameters) =>
      client
        .unsafe(text, parameters as string[], { prepare: true })
        .forEach(collect) as unknown as Promise<Rows>,
    cancel(query) {
      const running = query as unknown as Running
      // postgres.js cancels only what is active rightly: marking one that was sent but is not active would hand its
      // answer to the next. And its own cancel() drops this promise, whose rejection would end the process.
      if (!running.active) return
      // It asks for its socket before it returns.
      cancelling = true
      running.canceller?.(running).catch(() => {})
      cancelling = false
    },
    destroy() {
      destroyed = true
      void client.end({ timeout: 0 })
      // A reset: the database drops what it has not read yet, where after a plain end it would still do it.
      if (socket?.connecting || host() === '') socket?.destroy()
      else socket?.resetAndDestroy()
    },
    async end(milliseconds) {
      await client.end({ timeout: milliseconds / 1000 })
      destroyed = true
      // postgres.js waits for the other end to hang up, which may never happen.
      socket?.destroy()
    }
  }
}
