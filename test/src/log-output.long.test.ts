import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { SECRET } from '../support/api.js'
import { emptyDatabase } from '../support/databases.js'
import { openPipe } from '../support/log-pipe.js'
import { aliceAt, emptyFolder, startProcess, until } from '../support/process.js'
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
    t.match(await service.stop(), { code: 0, signal: null })
    t.equal(service.err(), '')
  })
})

/** Runs statements in a process of its own whose `output` is for this descriptor, and returns how it ended and wrote. */
async function ran(t: Test, fd: string, statements: string) {
  const module = new URL('../../src/log-output.js', import.meta.url).href
  const script = `
    import { constants, openSync } from 'node:fs'
    const openPipe = () => openSync('pipe', constants.O_WRONLY | constants.O_NONBLOCK)
    import { logOutput } from ${JSON.stringify(module)}
    const output = logOutput(${fd})
    ${statements}`
  const command = 'mkfifo pipe && exec "$0" --input-type=module -e "$1" 3<> pipe'
  const child = spawn('/bin/sh', ['-c', command, process.execPath, script], { cwd: emptyFolder(t) })
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  t.equal(err, '')
  return { out, code: child.exitCode, signal: child.signalCode }
}

t.test('lines that are not written yet are written when the process exits', async (t) => {
  const lines = "for (const line of ['1', '2', '3']) output.write(line + '\\n'); process.exit(3)"
  const { out, ...end } = await ran(t, 'process.stdout.fd', lines)
  // On a busy machine a line can overtake another one.
  t.strictSame(out.trim().split('\n').sort(), ['1', '2', '3'])
  t.strictSame(end, { code: 3, signal: null })
})

t.test('an output that was full is no reason to end itself', async (t) => {
  const lines = `
    const { readSync } = await import('node:fs')
    const fill = () => {
      for (let i = 0; i < 70; i++) output.write('x'.repeat(999) + '\\n')
    }
    const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
    fill()
    await later(20)
    // While a retry is due, the pipe is read and the rest is written with a new line.
    readSync(3, Buffer.alloc(70_000))
    output.write('last\\n')
    await later(700)
    await output.written()
    process.exit(3)`
  t.strictSame(await ran(t, 'openPipe()', lines), { out: '', code: 3, signal: null })
})

t.test('a process whose write hangs ends itself', async (t) => {
  const fill =
    "for (let i = 0; i < 300; i++) output.write('x'.repeat(999) + '\\n'); await output.written(); process.exit(3)"
  // Node does not make such a descriptor non-blocking, and then waits for the write when it exits.
  t.strictSame(await ran(t, "openSync('pipe', 'r+')", fill), { out: '', code: null, signal: 'SIGKILL' })
  t.strictSame(await ran(t, "openSync('/dev/full', 'w')", fill), { out: '', code: 3, signal: null })
})

t.test('the end waits as long as a slow reader takes lines', async (t) => {
  const { output, failures, read } = openPipe(t)
  for (let i = 1; i <= 1_000; i++) output.write(`${i}`.padEnd(999).concat('\n'))
  let text = ''
  // It takes 64 kB each time, so more than a second in all.
  const reader = setInterval(() => {
    text += read()
  }, 100)
  t.teardown(() => clearInterval(reader))
  await output.written()
  text += read()
  t.equal(text.length, 1_000_000)
  t.strictSame(failures, [])
})

t.test('the end waits for a reader that takes nothing for a second', async (t) => {
  const { output, failures, read } = openPipe(t)
  for (let i = 1; i <= 1_000; i++) output.write(`${i}`.padEnd(999).concat('\n'))
  await output.written()
  t.strictSame(failures, [])
  const first = read()
  t.ok(first.startsWith('1 ') && first.length < 100_000)
  // The others follow when it reads again.
  let text = first
  await until(async () => {
    text += read()
    return text.length === 1_000_000
  })
})
