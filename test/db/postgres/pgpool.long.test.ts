import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { StartError } from '../../../db/errors.js'
import { type Client, clientOf, startApp } from '../../support/api.js'
import { emptyDatabase } from '../../support/databases.js'
import { hasProgram, PROGRAMS } from '../../support/debian.js'
import { freePort, unprivileged } from '../../support/postgres-server.js'
import { emptyFolder, until } from '../../support/process.js'
import t, { type Test } from '../../support/tap.js'

const USERS = Array.from({ length: 20 }, (_, n) => `user ${n}`)

/** Starts Pgpool-II in front of this database, and returns the URL through it. */
async function startPgpool(t: Test, url: string, settings: string): Promise<string> {
  const { port, pathname, username } = new URL(url)
  const folder = emptyFolder(t)
  chmodSync(folder, 0o777)
  const own = await freePort()
  writeFileSync(
    join(folder, 'pgpool.conf'),
    `listen_addresses = '127.0.0.1'
    port = ${own}
    pcp_listen_addresses = ''
    unix_socket_directories = '${folder}'
    socket_dir = '${folder}'
    pcp_socket_dir = '${folder}'
    logdir = '${folder}'
    pid_file_name = '${folder}/pid'
    backend_hostname0 = '127.0.0.1'
    backend_port0 = ${port}
    backend_flag0 = 'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'
    sr_check_period = 0
    ${settings}
    `.replaceAll(/^ +/gm, '')
  )
  const child = spawn('pgpool', ['-n', '-f', 'pgpool.conf', '-a', 'none', '-F', 'none'], {
    ...unprivileged(),
    cwd: folder,
    env: { PATH: PROGRAMS },
    stdio: ['ignore', 'ignore', 'pipe']
  })
  let log = ''
  child.stderr.on('data', (chunk) => {
    log += chunk
  })
  t.teardown(async () => {
    const exit = once(child, 'exit')
    if (child.kill('SIGINT')) await exit
  })
  await until(() => log.includes('successfully started') || child.exitCode !== null)
  if (child.exitCode !== null) throw new Error(`Pgpool-II did not start:\n${log}`)
  return `postgres://${username}@127.0.0.1:${own}${pathname}`
}

if (hasProgram(t, 'pgpool', 'pgpool2')) {
  const off = 'load_balance_mode = off'
  const refused = {
    'load_balance_mode = on': /Pgpool-II must have load_balance_mode = off$/,
    [`${off}\nmemory_cache_enabled = on`]: /Pgpool-II must have memory_cache_enabled = off$/,
    [`${off}\nbackend_clustering_mode = raw`]:
      /Pgpool-II must have backend_clustering_mode = streaming_replication$/
  }
  for (const [settings, message] of Object.entries(refused)) {
    t.test(`Pgpool-II with ${settings.split('\n').at(-1)} is refused`, async (t) => {
      const DATABASE_URL = await startPgpool(t, await emptyDatabase(t), settings)
      await t.rejects(startApp(t, 'postgres', { DATABASE_URL }), { name: StartError.name, message })
    })
  }

  t.test('behind Pgpool-II, concurrent users find what was acknowledged', async (t) => {
    const DATABASE_URL = await startPgpool(t, await emptyDatabase(t), off)
    const app = await startApp(t, 'postgres', { DATABASE_URL })
    const faults: unknown[] = []
    const everything = async (client: Client, user: string) => {
      const call = async (expected: number, ...request: Parameters<Client>) => {
        const { status, text, json } = await client(...request)
        if (status !== expected) faults.push([user, ...request, status, text])
        return json
      }
      for (let n = 1; n <= 40; n++) {
        const title = `${n} of ${user}`
        const { id } = (await call(201, 'POST', '', { title })) ?? {}
        await call(200, 'PATCH', `/${id}/complete`)
        const task = await call(200, 'GET', `/${id}`)
        if (task?.title !== title || !task?.completed) faults.push([user, title, task])
        if (n % 2 === 0) await call(204, 'DELETE', `/${id}`)
      }
      const list = await call(200, 'GET')
      if (list?.length !== 20) faults.push([user, list])
    }
    await Promise.all(USERS.map(async (user) => everything(await clientOf(app, user), user)))
    t.strictSame(faults, [])
  })
}
