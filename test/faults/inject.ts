import { setTimeout as sleep } from 'node:timers/promises'
import type { TcpProxy } from '../support/tcp-proxy.js'
import type { Fault, FaultKind } from './schedule.js'
import { PASSWORD, ROLE, type System } from './system.js'

/** Starts a fault, and ends it. Resolves when the service is no longer disturbed. */
export async function inject(system: System, fault: Fault): Promise<void> {
  await FAULTS[fault.kind](system, fault)
}

type Inject = (system: System, fault: Fault) => Promise<void>

/** A fault of the network: its start and its end on each proxy. */
const network =
  (begin: (proxy: TcpProxy, fault: Fault) => unknown, end: (proxy: TcpProxy) => unknown): Inject =>
  async ({ proxies }, fault) => {
    const hit = proxies.filter((_, replica) => fault.replicas.includes(replica))
    await Promise.all(hit.map((proxy) => begin(proxy, fault)))
    await sleep(fault.milliseconds)
    await Promise.all(hit.map(end))
  }

const postgresDies =
  (signal: 'SIGQUIT' | 'SIGKILL'): Inject =>
  async ({ server }, { milliseconds }) => {
    await server.kill(signal)
    await sleep(milliseconds)
    await server.restart()
  }

const serviceEnds =
  (signal: 'SIGTERM' | 'SIGKILL'): Inject =>
  async ({ replicas }, fault) => {
    await Promise.all(
      fault.replicas.map(async (replica) => {
        await replicas[replica]?.stop(signal)
        await sleep(fault.milliseconds)
        await replicas[replica]?.start()
      })
    )
  }

const terminateBackends = ({ withAdminConnection }: System) =>
  withAdminConnection(
    (sql) => sql`select pg_terminate_backend(pid) from pg_stat_activity where usename = ${ROLE}`
  )

/** This fault affects only new connections, so open ones are closed first. */
const atConnect =
  (begin: (system: System) => Promise<unknown>, end: (system: System) => Promise<unknown>): Inject =>
  async (system, { milliseconds }) => {
    await begin(system)
    await terminateBackends(system)
    await sleep(milliseconds)
    await end(system)
  }

/** Runs a superuser's statement about the service's role. */
const alterRole =
  (change: string) =>
  ({ withAdminConnection }: System) =>
    withAdminConnection((sql) => sql.unsafe(`alter role ${ROLE} ${change}`))

const tlsHandshakes = (mode: TcpProxy['mode']): Inject =>
  network(
    (proxy) => {
      proxy.mode = mode
      proxy.cut()
    },
    (proxy) => {
      proxy.mode = 'pass'
      proxy.cut()
    }
  )

const FAULTS: Record<FaultKind, Inject> = {
  'connections refused': network(
    (proxy) => proxy.refuse(),
    (proxy) => proxy.listen()
  ),
  'connections cut': network(
    (proxy) => proxy.cut(),
    () => {}
  ),
  'network silent': network(
    (proxy) => {
      proxy.mode = 'silent'
      proxy.freeze()
    },
    (proxy) => {
      proxy.mode = 'pass'
      proxy.thaw()
    }
  ),
  'network late': network(
    (proxy, { delay }) => {
      proxy.delay = delay
    },
    (proxy) => {
      proxy.delay = 0
    }
  ),
  'connections closed at once': network(
    (proxy) => {
      proxy.mode = 'close'
      proxy.cut()
    },
    (proxy) => {
      proxy.mode = 'pass'
    }
  ),
  'PostgreSQL SIGQUIT': postgresDies('SIGQUIT'),
  'PostgreSQL SIGKILL': postgresDies('SIGKILL'),
  'backends terminated': async (system) => {
    await terminateBackends(system)
  },
  'table locked': ({ withAdminConnection }, { milliseconds }) =>
    withAdminConnection(async (sql) => {
      await sql`begin`
      await sql`lock table tasks in access exclusive mode`
      await sleep(milliseconds)
      await sql`rollback`
    }),
  'database read-only': async (system, { milliseconds }) => {
    // Like a former primary: open connections do not notice when it becomes the primary again.
    await system.withAdminConnection(
      (sql) => sql`alter database postgres set default_transaction_read_only = on`
    )
    await terminateBackends(system)
    await sleep(milliseconds)
    await system.withAdminConnection((sql) =>
      sql.begin('read write', (tx) => tx`alter database postgres reset default_transaction_read_only`)
    )
  },
  'connection limit': atConnect(alterRole('connection limit 0'), alterRole('connection limit -1')),
  'password changed': atConnect(alterRole(`password 'another'`), alterRole(`password '${PASSWORD}'`)),
  'TLS handshakes silent': tlsHandshakes('silent handshake'),
  'TLS handshakes cut': tlsHandshakes('cut handshake'),
  'certificate expired': atConnect(
    ({ server }) => server.useCertificate({ isExpired: true }),
    ({ server }) => server.useCertificate()
  ),
  'service SIGKILL': serviceEnds('SIGKILL'),
  'service SIGTERM': serviceEnds('SIGTERM'),
  'service paused': async ({ replicas }, fault) => {
    const hit = replicas.filter((_, replica) => fault.replicas.includes(replica))
    for (const replica of hit) replica.pause()
    await sleep(fault.milliseconds)
    for (const replica of hit) replica.resume()
  }
}
