import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import t, { type Spawn } from 'tap'
import { type Prepared, prepareEmbedded } from './support/prepared.js'
import { reportOn } from './support/report.js'
import { ROOT } from './support/root.js'
import type { Assignment } from './worker.js'

// npm test [-- <test file …>]: runs these test files, or all but the long ones, compiled. npm run test:long runs the long
// ones. Workers take one file after the other (worker.ts).
//
// tap's command starts a process for each file, and loads hooks into it, for mocks and for TypeScript. To import tap and
// the app then takes several seconds of processor for each file.

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** How many files run at the same time. */
    jobs: { type: 'string', short: 'j', default: String(availableParallelism()) },
    /** How long a file may take, in seconds. */
    timeout: { type: 'string', default: '180' },
    long: { type: 'boolean', default: false }
  }
})

/** Makes more requests when it is long. */
const FUZZ = 'test/routes/tasks/validation.test.ts'
if (values.long) process.env.FUZZ_REQUESTS ??= '1000'

const isWanted = (file: string) =>
  file.endsWith('.test.ts') &&
  (file.endsWith('.long.test.ts') === values.long || (values.long && file === FUZZ))
const files =
  positionals.length > 0
    ? positionals.map((file) => relative(ROOT, file))
    : readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
        .map((file) => join('test', file))
        .filter(isWanted)
        .sort()
const WORKER = fileURLToPath(new URL('worker.js', import.meta.url))

// Each file has its own.
t.setTimeout(0)

/** The PostgreSQL server of this run ends when the channel to its process closes, however this process ends. */
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
  // tap would have Node load its hooks by NODE_OPTIONS.
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
    // One that crashes takes only its file with it.
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
