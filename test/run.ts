import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import t, { type Spawn } from 'tap'
import { type Prepared, prepareEmbedded } from './support/prepared.js'
import { reportOn } from './support/report.js'
import { ROOT } from './support/root.js'
import type { Assignment } from './worker.js'

// npm test [-- <test file …>]: runs these compiled test files, or all except the long ones. npm run test:long runs
// the long ones. Workers run one file after another (worker.ts).

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** Number of files that run at the same time. */
    jobs: { type: 'string', short: 'j', default: String(availableParallelism() + 1) },
    /** Timeout of each file, in seconds. */
    timeout: { type: 'string', default: '180' },
    long: { type: 'boolean', default: false }
  }
})

/** Larger files tend to take longer. They are first, so that all workers end at about the same time. */
const bySize = (a: string, b: string) => sizeOf(b) - sizeOf(a)
const sizeOf = (file: string) => statSync(join(ROOT, file)).size
const isWanted = (file: string) => file.endsWith('.test.ts') && file.endsWith('.long.test.ts') === values.long
const files =
  positionals.length > 0
    ? positionals.map((file) => relative(ROOT, file))
    : readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
        .map((file) => join('test', file))
        .filter(isWanted)
        .sort(bySize)
const WORKER = fileURLToPath(new URL('worker.js', import.meta.url))

// Each file has a timeout of its own.
t.setTimeout(0)

/** The run's PostgreSQL server stops when the channel to its process closes, even if this process is killed. */
const server = fork(fileURLToPath(new URL('support/server.js', import.meta.url)))
const notStarted = once(server, 'exit').then(() => {
  throw new Error('the PostgreSQL server for the tests did not start')
})
const [[postgres], embedded] = await Promise.all([
  Promise.race([once(server, 'message'), notStarted]),
  prepareEmbedded()
])
const prepared: Prepared = { postgres, embedded }

t.register()
t.resume()
t.jobs = Number(values.jobs)
const queue = files.map(
  (name): Assignment => ({
    name,
    compiled: join(ROOT, 'dist-test', name.replace(/\.ts$/, '.js')),
    timeoutMs: Number(values.timeout) * 1000
  })
)
const report = reportOn(t)

let workers = 0
function startWorker(): void {
  // tap sets NODE_OPTIONS to make Node load its hooks.
  const command = ['-u', 'NODE_OPTIONS', process.execPath, '--enable-source-maps', WORKER]
  void t.spawn('env', command, {
    name: `worker ${++workers}`,
    buffered: true,
    cwd: ROOT,
    env: { ...process.env, TAP_TIMEOUT: '0', TEST_PREPARED: JSON.stringify(prepared) }
  })
}
t.on('subtestAdd', (worker) => {
  ;(worker as Spawn).once('process', (child: ChildProcess) => {
    let file: string | undefined
    child.on('message', (message) => {
      if (message !== 'ready') return
      const next = queue.shift()
      file = next?.name
      if (file !== undefined) report.began(file)
      child.send(next ?? 'end')
    })
    // If a worker crashes, only its current file is lost.
    child.once('close', (code, signal) => {
      if (file === undefined) return
      report.broke(file, signal ?? `exit code ${code}`)
      if (queue.length > 0) startWorker()
    })
  })
})
for (let n = Math.min(t.jobs, files.length); n > 0; n--) startWorker()
t.teardown(async () => {
  server.disconnect()
  await once(server, 'exit')
})
