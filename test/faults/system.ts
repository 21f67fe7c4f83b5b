import postgres from 'postgres'
import type { Transport } from '../support/databases.js'
import { freePort, type PostgresServer, SECURED, startPostgres } from '../support/postgres-server.js'
import { emptyFolder, type Service, startProcess } from '../support/process.js'
import { SECRET } from '../support/sign.js'
import type { Test } from '../support/tap.js'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.js'
import type { Downtime } from './answers.js'

type Scope = Pick<Test, 'teardown'>

/** The service's role, which has a password. */
export const ROLE = `${SECURED}tasks`
export const PASSWORD = 'secret'

/** Maximum number of a replica's connections. */
export const POOL = 10

/** One process of the service at a time, always at the same address. */
export interface Replica {
  api: string
  /** Times in which it was stopped on purpose. */
  downtimes: { from: number; to: number }[]
  /** Failures of its processes: unexpected ends, and log lines that only bugs cause. */
  failures: string[]
  start(): Promise<void>
  /** @throws Error if the process does not end within half a minute */
  stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>
  pause(): void
  resume(): void
}

/** Starts a process of the service, and waits until it is ready. */
export async function replicaOf(t: Scope, env: Record<string, string>): Promise<Replica> {
  const [PORT, OPS_PORT] = [String(await freePort()), String(await freePort())]
  const cwd = emptyFolder(t)
  let service: Service
  let isStopping = false

  const replica: Replica = {
    api: `http://127.0.0.1:${PORT}`,
    downtimes: [],
    failures: [],
    async start() {
      isStopping = false
      const started = await startProcess(
        t,
        { JWT_SECRET: SECRET, LOG_LEVEL: 'error', NODE_ENV: 'production', ...env, PORT, OPS_PORT },
        { cwd }
      )
      service = started
      started.process.once('close', (code, signal) => {
        if (!isStopping) replica.failures.push(`the process ended by itself: ${code ?? signal}`)
        else if (signal === null && code !== 0) replica.failures.push(`exit code ${code} after SIGTERM`)
        // Log lines are JSON, and only bugs are logged at error.
        const logged = started
          .out()
          .split('\n')
          .filter((line) => line.startsWith('{'))
        const output = [started.err(), ...logged].join('\n').trim()
        if (output !== '') replica.failures.push(`the process wrote: ${output.slice(0, 2_000)}`)
      })
      await started.ready()
      const down = replica.downtimes.at(-1)
      if (down) down.to = performance.now()
    },
    async stop(signal) {
      isStopping = true
      replica.downtimes.push({ from: performance.now(), to: Number.POSITIVE_INFINITY })
      await service.stop(signal)
    },
    pause: () => service.process.kill('SIGSTOP'),
    resume: () => service.process.kill('SIGCONT')
  }
  await replica.start()
  return replica
}

export const downtimesOf = (replicas: Replica[]): Downtime[] =>
  replicas.flatMap(({ downtimes }, replica) => downtimes.map((downtime) => ({ replica, ...downtime })))

/** The service with its embedded database. */
export async function startEmbedded(t: Scope): Promise<Replica> {
  return replicaOf(t, { NODE_ENV: 'development', DATA_DIR: emptyFolder(t) })
}

export interface System {
  server: PostgresServer
  replicas: Replica[]
  /** The network between each replica and PostgreSQL. */
  proxies: TcpProxy[]
  /** Runs work on a direct connection, without the proxies. */
  withAdminConnection<T>(work: (sql: postgres.Sql) => Promise<T>): Promise<T>
}

/** Replicas of the service with one PostgreSQL server, each behind a proxy of its own. */
export async function startSystem(t: Scope, count: number, transport: Transport): Promise<System> {
  const server = await startPostgres({ fsync: 'on' })
  t.teardown(() => server.stop())
  const direct = server.url('postgres')
  const withAdminConnection: System['withAdminConnection'] = async (work) => {
    const sql = postgres(direct, { max: 1, fetch_types: false, onnotice: () => {} })
    try {
      return await work(sql)
    } finally {
      await sql.end({ timeout: 1 })
    }
  }
  await withAdminConnection((sql) => sql.unsafe(`create role ${ROLE} login password '${PASSWORD}'`))
  const url = new URL(direct)
  url.username = ROLE
  url.password = PASSWORD
  if (transport === 'tls') url.search = `?sslmode=verify-full&sslrootcert=${server.authority}`
  const proxies = await Promise.all(Array.from({ length: count }, () => startProxy(t, url.href)))
  const env = { MIGRATION_DATABASE_URL: direct, DATABASE_POOL_MAX: String(POOL) }
  const replicas = await Promise.all(
    proxies.map((proxy) => replicaOf(t, { ...env, DATABASE_URL: proxy.url }))
  )
  return { server, replicas, proxies, withAdminConnection }
}

/** The service's connections in the database, each in one line. */
export const connectionsOf = ({ withAdminConnection }: System): Promise<string[]> =>
  withAdminConnection(async (sql) => {
    const rows = await sql`
      select pid, client_port, state, wait_event_type, wait_event, now() - backend_start as age, query
      from pg_stat_activity where usename = ${ROLE} order by backend_start`
    return rows.map((row) => JSON.stringify(row))
  })
