import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import postgres from 'postgres'
import { postgresPrograms } from '../support/debian.js'
import { freePort, unprivileged } from '../support/postgres-server.js'
import { emptyFolder, until } from '../support/process.js'
import type { Test } from '../support/tap.js'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.js'

type Scope = Pick<Test, 'teardown'>

/** Patroni's settings for the detection of failures, in seconds. */
export interface Times {
  ttl: number
  loop_wait: number
  retry_timeout: number
}

/** The settings of docs/failover.md, without the times. */
const SETTINGS = {
  synchronous_mode: true,
  synchronous_mode_strict: true,
  primary_start_timeout: 0,
  postgresql: {
    use_pg_rewind: true,
    parameters: {
      wal_retrieve_retry_interval: '1s',
      max_connections: 100,
      shared_buffers: '32MB',
      wal_keep_size: '256MB'
    }
  }
}

/** One PostgreSQL server with its Patroni. All traffic goes through proxies, so it can be cut off. */
export interface Node {
  name: string
  /** A direct connection for the harness, without the proxies. */
  url: string
  /** The proxies for the service, for etcd, and for the other nodes. */
  clients: TcpProxy
  etcd: TcpProxy
  replication: TcpProxy
  rest: TcpProxy
  start(): void
  /** Kills Patroni and every process of PostgreSQL. */
  kill(): Promise<void>
  /** Kills Patroni only. */
  killPatroni(): Promise<void>
  log(): string
}

export interface Member {
  name: string
  role: string
  state: string
  /** Missing while a standby does not follow the primary. */
  timeline: number | undefined
}

export interface Cluster {
  times: Times
  nodes: Node[]
  members(): Promise<Member[]>
  /** The node that is the primary. */
  primary(): Promise<Node>
  /** Resolves when there is a primary, every other node follows it, and one of them is synchronous. */
  healthy(): Promise<void>
  switchover(from: Node, to: Node): Promise<void>
}

/** Starts etcd and Patroni with one primary and two standbys. Needs Debian's etcd-server, patroni and postgresql. */
export async function startCluster(t: Scope, times: Times): Promise<Cluster> {
  const home = emptyFolder(t)
  chmodSync(home, 0o755)
  const etcd = await startEtcd(t, home)
  const nodes: Node[] = []
  for (const name of ['node0', 'node1', 'node2']) nodes.push(await makeNode(t, { home, name, etcd, times }))
  const rests = new Map(nodes.map((node) => [node, node.rest.upstream]))

  const members = async (): Promise<Member[]> => {
    const asked = [...rests.values()].map(async (rest) => {
      const answer = await fetch(`${rest}/cluster`, { signal: AbortSignal.timeout(2_000) })
      const { members } = (await answer.json()) as { members: Member[] }
      return members.map(({ name, role, state, timeline }) => ({ name, role, state, timeline }))
    })
    // A killed node does not answer. One that was cut off tells for some time what it knew before.
    const views = (await Promise.allSettled(asked)).filter((view) => view.status === 'fulfilled')
    const [first = [], ...others] = views.map(({ value }) => value)
    return others.every((view) => isDeepStrictEqual(view, first)) ? first : []
  }
  const cluster: Cluster = {
    times,
    nodes,
    members,
    async primary() {
      let found: Node | undefined
      await until(async () => {
        const leader = (await members()).find(({ role }) => role === 'leader')
        found = nodes.find(({ name }) => name === leader?.name)
        return found !== undefined
      })
      return found as Node
    },
    async healthy() {
      await until(async () => {
        const all = await members()
        const count = (role: string) => all.filter((one) => one.role === role).length
        const isWell = all.every(
          ({ state, timeline }) =>
            /^(running|streaming)$/.test(state) && timeline !== undefined && timeline === all[0]?.timeline
        )
        return isWell && all.length === nodes.length && count('leader') === 1 && count('sync_standby') === 1
      }).catch(async (error) => {
        const logs = nodes.map((node) => `${node.name}:\n${node.log()}`).join('\n')
        throw new Error(`${error.message}\n${JSON.stringify(await members())}\n${logs}`)
      })
    },
    async switchover(from, to) {
      const answer = await fetch(`${rests.get(from)}/switchover`, {
        method: 'POST',
        body: JSON.stringify({ leader: from.name, candidate: to.name })
      })
      if (!answer.ok) throw new Error(`switchover: ${answer.status} ${await answer.text()}`)
    }
  }
  const [first, ...others] = nodes as [Node, ...Node[]]
  first.start()
  await cluster.primary()
  for (const node of others) node.start()
  await cluster.healthy()
  return cluster
}

/** Starts a program that must not run as root, as another user if needed. It ends with the test. */
function run(t: Scope, home: string, command: string, args: string[]) {
  const child = spawn(command, args, {
    ...unprivileged(),
    cwd: home,
    env: { PATH: process.env.PATH, HOME: home, LC_ALL: 'C.UTF-8' },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  let log = ''
  const keep = (chunk: Buffer) => {
    log = (log + chunk).slice(-4_000)
  }
  child.stdout.on('data', keep)
  child.stderr.on('data', keep)
  child.once('error', (error) => keep(Buffer.from(error.message)))
  t.teardown(() => killed(child))
  return { child, log: () => log }
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  await new Promise((resolve) => {
    child.once('exit', resolve)
    child.kill('SIGKILL')
  })
}

function folder(home: string, name: string): string {
  const path = join(home, name)
  mkdirSync(path, { mode: 0o700 })
  const user = unprivileged()
  if (user) chownSync(path, user.uid, user.gid)
  return path
}

/** @returns its URL */
async function startEtcd(t: Scope, home: string): Promise<string> {
  const data = folder(home, 'etcd')
  const [client, peer] = [`http://127.0.0.1:${await freePort()}`, `http://127.0.0.1:${await freePort()}`]
  const { log } = run(t, data, 'etcd', [
    ...['--data-dir', data],
    ...['--listen-client-urls', client, '--advertise-client-urls', client],
    ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
    ...['--initial-cluster', `default=${peer}`]
  ])
  const isHealthy = () =>
    fetch(`${client}/health`).then(
      (answer) => answer.ok,
      () => false
    )
  await until(isHealthy, 20_000).catch(() => {
    throw new Error(`etcd did not start:\n${log()}`)
  })
  return client
}

async function makeNode(
  t: Scope,
  options: { home: string; name: string; etcd: string; times: Times }
): Promise<Node> {
  const { name, times } = options
  const home = folder(options.home, name)
  const data = join(home, 'data')
  const port = await freePort()
  const url = `postgres://postgres@127.0.0.1:${port}/postgres?sslmode=disable`
  const restUrl = `http://127.0.0.1:${await freePort()}`
  const [clients, replication, rest, etcd] = await Promise.all([
    startProxy(t, url),
    startProxy(t, url),
    startProxy(t, restUrl),
    startProxy(t, options.etcd)
  ])
  const config = join(home, 'patroni.yml')
  // JSON is valid YAML.
  writeFileSync(
    config,
    JSON.stringify({
      scope: 'tasks',
      name,
      restapi: { listen: new URL(restUrl).host, connect_address: new URL(rest.url).host },
      etcd3: { hosts: [new URL(etcd.url).host], use_proxies: true },
      bootstrap: {
        dcs: { ...times, ...SETTINGS },
        initdb: [{ encoding: 'UTF8' }, { locale: 'C' }, { auth: 'trust' }, 'no-sync']
      },
      postgresql: {
        listen: `127.0.0.1:${port}`,
        connect_address: new URL(replication.url).host,
        data_dir: data,
        // The PostgreSQL of the npm package lacks pg_basebackup and pg_rewind.
        bin_dir: postgresPrograms(),
        pgpass: join(home, 'pgpass'),
        authentication: { superuser: { username: 'postgres' }, replication: { username: 'replicator' } },
        basebackup: [{ checkpoint: 'fast' }],
        parameters: { unix_socket_directories: home },
        pg_hba: [
          'local all all trust',
          'host all /^secured_ all scram-sha-256',
          'host replication all all trust',
          'host all all all trust'
        ]
      }
    })
  )
  let patroni: { child: ChildProcess; log: () => string } | undefined
  const node: Node = {
    name,
    url,
    clients,
    etcd,
    replication,
    rest,
    start() {
      patroni = run(t, home, 'patroni', [config])
    },
    async killPatroni() {
      if (patroni) await killed(patroni.child)
    },
    async kill() {
      await node.killPatroni()
      killPostgres(data)
    },
    log: () => patroni?.log() ?? ''
  }
  t.teardown(() => node.kill())
  return node
}

/** Kills all processes of the server with this data at once, as in a crash. */
function killPostgres(data: string): void {
  let postmaster: number
  try {
    postmaster = Number(readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[0])
    process.kill(postmaster, 'SIGSTOP')
  } catch {
    return
  }
  for (const pid of [postmaster, ...childrenOf(postmaster)]) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // The process has just ended.
    }
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      if (!Number.isInteger(pid)) return false
      try {
        // The fields after the name in parentheses: state, parent.
        const [, ppid] = readFileSync(`/proc/${pid}/stat`, 'utf8')
          .replace(/^.*\) /, '')
          .split(' ')
        return Number(ppid) === parent
      } catch {
        return false
      }
    })
}

/** Runs work on one node, without the proxies. */
export async function withAdminConnection<T>(
  node: Node,
  work: (sql: postgres.Sql) => Promise<T>
): Promise<T> {
  const sql = postgres(node.url, { max: 1, fetch_types: false, onnotice: () => {} })
  try {
    return await work(sql)
  } finally {
    await sql.end({ timeout: 1 })
  }
}
