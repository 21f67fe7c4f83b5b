import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import t from 'tap'
import { type Prepared, prepareEmbedded } from './support/prepared.js'
import { reportOn } from './support/report.js'
import { ROOT } from './support/root.js'

// npm test [-- <test file …>]: runs these test files, or all but the long ones, compiled, and each in a process of its
// own. npm run test:long runs the long ones.
//
// tap's command does the same, but loads hooks into each process, for mocks and for TypeScript. They make every import
// slower: a test file that imports the app then takes more than twice the time to start.

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** How many files run at the same time. More than there are cores saved nothing. */
    jobs: { type: 'string', short: 'j', default: String(availableParallelism()) },
    /** How long a file may take, in seconds. */
    timeout: { type: 'string', default: '180' },
    long: { type: 'boolean', default: false }
  }
})

/** Makes more requests when it is long. */
const FUZZ = 'test/routes/tasks/validation.test.ts'
if (values.long) process.env.FUZZ_REQUESTS ??= '3000'

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
reportOn(t)
for (const file of files) {
  const compiled = join(ROOT, 'dist-test', file.replace(/\.ts$/, '.js'))
  // tap would have Node load its hooks by NODE_OPTIONS.
  void t.spawn('env', ['-u', 'NODE_OPTIONS', process.execPath, '--enable-source-maps', compiled], {
    name: file,
    buffered: true,
    timeout: Number(values.timeout) * 1000,
    cwd: ROOT,
    env: { ...process.env, TAP_TIMEOUT: values.timeout, TEST_PREPARED: JSON.stringify(prepared) }
  })
}
t.teardown(async () => {
  server.disconnect()
  await once(server, 'exit')
})
