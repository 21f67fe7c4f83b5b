import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdirSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Task } from '../../db/schema.js'
import { sqlClient } from '../support/databases.js'
import { hasProgram, PROGRAMS } from '../support/debian.js'
import { blocksOf } from '../support/markdown.js'
import { freePort, unprivileged } from '../support/postgres-server.js'
import { emptyFolder, startProcess, until } from '../support/process.js'
import { SECRET, sign } from '../support/sign.js'
import t, { type Test } from '../support/tap.js'

// Follows docs/data.md with the programs of a real PostgreSQL, while users change their tasks.

const blocks = blocksOf('docs/data.md').map(({ code }) => code)
const block = (mark: string) => blocks.find((code) => code.includes(mark)) ?? `no block has ${mark}`

const USERS = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank']
/** Number of changes by each user between two steps. */
const CHANGES = 25

if (hasProgram(t, 'pg_basebackup', 'postgresql')) {
  t.test('a restore of a service in use, by the guide', async (t) => {
    const server = await startServer(t)
    const service = await (await startProcess(t, { JWT_SECRET: SECRET, ...server.urls('tasks') })).ready()
    const users = await Promise.all(USERS.map((name) => startUser(service.api, name)))
    const more = async () => {
      const least = users.map(({ changes }) => changes.length + CHANGES)
      await until(() => users.every(({ changes }, at) => changes.length >= (least[at] as number)))
    }

    await more()
    await server.run(block('pg_basebackup'))
    await more()
    const dumping = { from: Date.now(), until: 0 }
    await server.run(block('pg_dump --'))
    dumping.until = Date.now()
    await server.run(block('pg_restore'))
    await more()
    const first = Date.now()
    await more()
    const second = Date.now()
    await more()
    const sql = sqlClient(t, server.url('tasks'))
    const [last] = await sql`select pg_walfile_name(pg_switch_wal()) as file`
    await until(
      async () => (await sql`select last_archived_wal as file from pg_stat_archiver`)[0]?.file >= last?.file
    )
    for (const user of users) await user.stop()
    await service.stop()

    t.test('a dump has the tasks of all users from one snapshot', async (t) => {
      await server.run(rightsIn('tasks_restored'))
      await isRestored(t, server.urls('tasks_restored'), users, dumping.from, dumping.until)
    })

    for (const [name, moment] of Object.entries({ restored: first, 'restored-again': second })) {
      t.test(
        `${name} to a time has every change that was acknowledged before, and no later one`,
        async (t) => {
          await server.kill()
          const shown = block('recovery_target_time').replaceAll('/restored', `/${name}`)
          const time = new Date(moment).toISOString().replace('T', ' ').replace('Z', '+00')
          const commands = shown
            .replace(/(?<=recovery_target_time = ')[^']+/, time)
            .replace(/base-[\d-]+/, 'base-*')
          t.not(commands, shown)
          await server.run(commands)
          await server.start(name)
          const restored = sqlClient(t, server.url('tasks'))
          await until(async () => !(await restored`select pg_is_in_recovery() as yes`)[0]?.yes)
          await isRestored(t, server.urls('tasks'), users, moment, moment)
          // The restored server archives its own timeline, which the next restore must not follow.
          await restored`select pg_switch_wal()`
        }
      )
    }
  })
}

/** The page's commands for a database's roles. */
const ROLES = blocksOf('docs/roles.md').find(({ language }) => language === 'sql')?.code ?? ''

/** The lines that are for one database, with its name. */
function rightsIn(database: string): string {
  const lines = ROLES.replaceAll('on database tasks', `on database ${database}`)
    .split('\n')
    .filter((line) => /^(revoke|grant) /.test(line))
  return `psql -v ON_ERROR_STOP=1 ${database} <<'END'\n${lines.join('\n')}\nEND`
}

/** Starts a server with the guide's settings. The guide's paths are below a folder of this test. */
async function startServer(t: Test) {
  const home = realpathSync(emptyFolder(t))
  const user = unprivileged()
  const port = await freePort()
  for (const folder of ['', 'backup', 'backup/wal']) {
    mkdirSync(join(home, folder), { recursive: true })
    if (user) chownSync(join(home, folder), user.uid, user.gid)
  }
  const env = { PATH: PROGRAMS, PGHOST: '127.0.0.1', PGPORT: String(port), PGUSER: 'postgres', LC_ALL: 'C' }
  const options = { ...user, cwd: home, env }
  let server: ChildProcess | undefined

  /** @param commands with the guide's paths */
  async function run(commands: string): Promise<void> {
    const here = commands
      .replaceAll('/backup/', `${home}/backup/`)
      .replaceAll('/var/lib/postgresql/', `${home}/`)
    await promisify(execFile)('sh', ['-ec', here], options)
  }

  /** @param data name of the folder */
  async function start(data: string): Promise<void> {
    const flags = Object.entries({ port, listen_addresses: '127.0.0.1', unix_socket_directories: '' })
    const child = spawn(
      'postgres',
      ['-D', data, ...flags.flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      {
        ...options,
        stdio: ['ignore', 'ignore', 'pipe']
      }
    )
    server = child
    let log = ''
    child.stderr.on('data', (chunk) => {
      log += chunk
    })
    await until(() => log.includes('ready to accept connections') || child.exitCode !== null)
    if (child.exitCode !== null) throw new Error(`PostgreSQL did not start:\n${log}`)
  }

  /** Ends all processes at once, like a crash. Written files stay. */
  async function kill(): Promise<void> {
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return
    server.kill('SIGQUIT')
    await once(server, 'exit')
  }
  t.teardown(kill)

  await run(`initdb -D primary -U postgres -A trust -E UTF8 --no-sync --no-instructions
    cat >> primary/postgresql.conf <<'END'\n${block('archive_mode')}END`)
  await start('primary')
  await run(`createdb tasks\npsql -v ON_ERROR_STOP=1 tasks <<'END'\n${ROLES}END`)
  const url = (name: string, role = 'postgres') =>
    `postgres://${role}@127.0.0.1:${port}/${name}?sslmode=disable`
  return {
    run,
    start,
    kill,
    url,
    urls: (name: string) => ({
      DATABASE_URL: url(name, 'tasks_service'),
      MIGRATION_DATABASE_URL: url(name, 'tasks_owner')
    })
  }
}

interface Change {
  sentAt: number
  answeredAt: number
  /** The user's list after the change, oldest first. */
  list: Task[]
}

type User = Awaited<ReturnType<typeof startUser>>

/** One user, who makes one change after another. */
async function startUser(api: string, name: string) {
  const authorization = `Bearer ${await sign({ sub: name })}`
  const call = async (method: string, path: string, body?: object) => {
    const response = await fetch(`${api}/api/${name}/tasks${path}`, {
      method,
      headers: { authorization, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) })
    })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status}`)
    return response.status === 204 ? undefined : ((await response.json()) as Task)
  }
  const changes: Change[] = []
  let isStopped = false

  async function change(list: Task[]): Promise<Task[]> {
    const [oldest, ...others] = list
    if (oldest && changes.length % 5 === 4) {
      await call('DELETE', `/${oldest.id}`)
      return others
    }
    if (oldest && changes.length % 2 === 1) {
      return [(await call('PATCH', `/${oldest.id}/complete`)) as Task, ...others]
    }
    return [...list, (await call('POST', '', { title: `change ${changes.length}` })) as Task]
  }

  async function run(): Promise<void> {
    for (let list: Task[] = []; !isStopped; ) {
      const sentAt = Date.now()
      list = await change(list)
      changes.push({ sentAt, answeredAt: Date.now(), list })
    }
  }
  const ended = run()
  return {
    name,
    changes,
    async stop() {
      isStopped = true
      await ended
    }
  }
}

/**
 * Starts a service on the database. Each user's list must be a state between two changes. It has all changes that
 * were answered before `from`, and none that was sent after `until`.
 */
async function isRestored(t: Test, urls: Record<string, string>, users: User[], from: number, until: number) {
  const service = await (await startProcess(t, { JWT_SECRET: SECRET, ...urls })).ready()
  for (const { name, changes } of users) {
    const first = changes.findLastIndex(({ answeredAt }) => answeredAt < from)
    const last = changes.findLastIndex(({ sentAt }) => sentAt <= until)
    t.ok(first > 0 && last < changes.length - 1, `${name} made changes before and after`)
    const headers = { authorization: `Bearer ${await sign({ sub: name })}` }
    const response = await fetch(`${service.api}/api/${name}/tasks`, { headers })
    const list = ((await response.json()) as Task[]).reverse()
    const candidates = changes.slice(first, last + 1).map((change) => JSON.stringify(change.list))
    t.ok(candidates.includes(JSON.stringify(list)), `${name}: ${candidates.length} states are possible`)
    const created = await fetch(`${service.api}/api/${name}/tasks`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: JSON.stringify({ title: 'after the restore' })
    })
    t.equal(created.status, 201)
  }
  await service.stop()
}
