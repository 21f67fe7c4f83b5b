import { execFileSync } from 'node:child_process'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { SECRET } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { aliceAt, emptyFolder, type Service, startProcess, until } from '../support/process.js'
import { ROOT } from '../support/root.js'
import t, { type Test } from '../support/tap.js'

/** The versions before, and whether they have the columns of today. */
const BEFORE = [
  // The last commit with one migration: tasks have no version, and creates no key.
  { version: '0.1.0', commit: 'b0bd34f1b653eaa7b51d581f298ef06cadc15767', isCurrent: false },
  { version: '1.0.0', commit: '4e25427302a10b3c44d892d6568a13c7457aae11', isCurrent: true },
  { version: '1.1.0', commit: '786a2fa32b3228bc8e7f2adcd353e5a977f8e513', isCurrent: true }
]

/** Rounds of all operations that each replica serves in each part of the deployment. */
const ROUNDS = 8

const git = (...args: string[]) => execFileSync('git', args, { cwd: ROOT, maxBuffer: 1e8 })

/** @returns the file of that version's server, compiled */
function buildEarlier(t: Test, commit: string): string {
  const folder = emptyFolder(t)
  execFileSync('tar', ['-x', '-C', folder], { input: git('archive', commit) })
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  const compile = ['node_modules/typescript/bin/tsc', '--noCheck', '-p', 'tsconfig.build.json']
  execFileSync(process.execPath, compile, { cwd: folder })
  return join(folder, 'dist/src/server.js')
}

/** Sends all six operations again and again, until the end of the test or of the replica. */
async function use(t: Test, name: string, service: Service) {
  const send = await aliceAt(service)
  let rounds = 0
  let isOver = false
  const expect = async (status: number, method: string, path = '', body?: object) => {
    const response = await send(method, path, body)
    const text = await response.text()
    if (response.status !== status) throw new Error(`${name}: ${method} ${path}: ${response.status} ${text}`)
    return text === '' ? undefined : JSON.parse(text)
  }
  const over = (async () => {
    while (!isOver) {
      const { id } = await expect(201, 'POST', '', { title: name })
      await expect(200, 'PATCH', `/${id}`, { description: 'a' })
      await expect(200, 'PUT', `/${id}`, { title: 'b' })
      await expect(200, 'PATCH', `/${id}/complete`)
      const task = await expect(200, 'GET', `/${id}`)
      t.match(task, { title: 'b', description: 'a', completed: true })
      t.ok((await expect(200, 'GET')).some((listed: { id: string }) => listed.id === id))
      await expect(204, 'DELETE', `/${id}`)
      rounds++
    }
  })()
  // `stop` returns the error.
  over.catch(() => {})
  const stop = () => {
    isOver = true
    return over
  }
  t.teardown(stop)
  return {
    expect,
    stop,
    /** Resolves after more rounds; rejects with what failed. */
    async more() {
      const enough = rounds + ROUNDS
      await Promise.race([until(() => rounds >= enough), over])
    }
  }
}

for (const { version, commit, isCurrent } of BEFORE) {
  t.test(`replicas of ${version} keep working during a rollout of this version`, async (t) => {
    if (git('rev-parse', '--is-shallow-repository').toString() === 'true\n') {
      t.plan(0, 'this shallow clone lacks the version before: git fetch --unshallow')
      return
    }
    const file = buildEarlier(t, commit)
    const url = (await emptyDatabase(t, 'plain')).split('?')[0] as string
    const sql = sqlClient(t, url)
    const columns = async () =>
      (await sql`select column_name as name from information_schema.columns where table_name = 'tasks'`).map(
        ({ name }) => name
      )
    const env = { DATABASE_URL: url, JWT_SECRET: SECRET, NODE_ENV: 'production' }

    const first = await (await startProcess(t, env, { file })).ready()
    const earlier = await use(t, 'earlier', first)
    await earlier.more()
    t.equal((await columns()).includes('version'), isCurrent, 'the schema before')
    const kept = await earlier.expect(201, 'POST', '', { title: 'kept' })

    const next = await (await startProcess(t, env)).ready()
    t.ok((await columns()).includes('version'), 'migrated, while the earlier replica was used')
    await earlier.more()
    const later = await use(t, 'later', next)
    await Promise.all([earlier.more(), later.more()])

    await t.test('each version serves what the other wrote', async (t) => {
      t.match(await later.expect(200, 'GET', `/${kept.id}`), kept)
      await later.expect(200, 'PATCH', `/${kept.id}`, { description: 'by the later' })
      t.match(await earlier.expect(200, 'GET', `/${kept.id}`), { description: 'by the later' })
      await earlier.expect(200, 'PATCH', `/${kept.id}/complete`)
      t.match(await later.expect(200, 'GET', `/${kept.id}`), { description: 'by the later', completed: true })
    })

    await t.test('a replica of the version before can start on the new schema', async (t) => {
      const again = await use(t, 'started again', await (await startProcess(t, env, { file })).ready())
      await Promise.all([again.more(), earlier.more(), later.more()])
      await again.stop()
    })

    await earlier.stop()
    t.match(await first.stop(), { code: 0 })
    await later.more()
    await later.stop()
  })
}
