import { SECRET } from '../support/api.js'
import { emptyDatabase } from '../support/databases.js'
import { aliceAt, startProcess } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

/** Starts the service through a shell that redirects its standard output, with a log line for each request. */
async function startWith(t: Test, redirection: string, before = '') {
  const env = {
    JWT_SECRET: SECRET,
    DATABASE_URL: await emptyDatabase(t),
    LOG_REQUESTS: 'true',
    LOG_LEVEL: 'info'
  }
  return startProcess(t, env, { within: ['/bin/sh', '-c', `${before} exec "$0" "$@" ${redirection}`] })
}

t.test('the service answers and stops if its standard output', async (t) => {
  t.test('is on a full disk', async (t) => {
    const service = await (await startWith(t, '> /dev/full')).ready()
    const alice = await aliceAt(service)
    t.equal((await alice('POST', '', { title: 'Buy milk' })).status, 201)
    t.equal((await alice('GET')).status, 200)
    const metrics = await (await fetch(`${service.ops}/metrics`)).text()
    t.match(metrics, /^log_output_failures_total\{kind="write"\} [1-9]/m)
    t.match(await service.stop(), { code: 0, signal: null })
    t.equal(service.err(), '')
  })

  t.test('has no reader any more, which left without reading everything', async (t) => {
    const service = await (await startWith(t, '')).ready()
    const alice = await aliceAt(service)
    service.process.stdout?.pause()
    for (let i = 0; i < 20; i++) t.equal((await alice('GET')).status, 200)
    service.process.stdout?.destroy()
    for (let i = 0; i < 20; i++) t.equal((await alice('GET')).status, 200)
    t.match(await service.stop(), { code: 0, signal: null })
    t.equal(service.err(), '')
  })

  t.test('has a reader that no longer reads', async (t) => {
    // The process itself holds the reading end of the pipe.
    const service = await (await startWith(t, '3<> pipe > pipe', 'mkfifo pipe &&')).ready()
    const alice = await aliceAt(service)
    const get = async () => (await alice('GET')).status
    for (let i = 0; i < 120; i++) {
      t.strictSame([...new Set(await Promise.all(Array.from({ length: 50 }, get)))], [200])
    }
    const metrics = await (await fetch(`${service.ops}/metrics`)).text()
    t.match(metrics, /^log_output_failures_total\{kind="drop"\} [1-9]/m)
    // Node cannot end a process with a write that hangs.
    t.match(await service.stop(), { signal: 'SIGKILL' })
    t.equal(service.err(), '')
  })
})
