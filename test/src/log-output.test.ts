import { closeSync, openSync } from 'node:fs'
import { logOutput } from '../../src/log-output.js'
import { openPipe } from '../support/log-pipe.js'
import { until } from '../support/process.js'
import t from '../support/tap.js'

t.test('lines are written in their order', async (t) => {
  const { output, failures, read } = openPipe(t)
  await output.written()
  output.write('1\n')
  output.write('2\n')
  await output.written()
  t.equal(read(), '1\n2\n')
  t.strictSame(failures, [])
})

t.test('a line that cannot be written is tried again with the next line', async (t) => {
  const { output, failures, leave, comeBack, read } = openPipe(t)
  leave()
  output.write('1\n')
  await output.written()
  output.write('2\n')
  await output.written()
  t.strictSame(failures, ['write', 'write'])
  comeBack()
  output.write('3\n')
  await output.written()
  t.equal(read(), '1\n2\n3\n')
  t.equal(failures.length, 2)
})

t.test('one megabyte of lines waits, and a line that is dropped tries them again', async (t) => {
  const { output, failures, leave, comeBack, read } = openPipe(t)
  leave()
  const dropped = () => failures.filter((kind) => kind === 'drop').length
  for (let i = 1; i <= 1_000; i++) output.write(`${i}`.padEnd(999).concat('\n'))
  await output.written()
  t.equal(dropped(), 0)
  comeBack()
  output.write('dropped\n')
  t.equal(dropped(), 1)
  let text = ''
  await until(async () => {
    text += read()
    return text.length >= 1_000_000
  })
  await output.written()
  output.write('last\n')
  await output.written()
  const lines = (text + read()).trimEnd().split(/ *\n/)
  t.strictSame(lines, [...Array.from({ length: 1_000 }, (_, i) => `${i + 1}`), 'last'])
})

t.test('a full output is tried again until it takes everything', async (t) => {
  const { output, failures, read } = openPipe(t)
  for (let i = 1; i <= 200; i++) output.write(`${i}`.padEnd(999).concat('\n'))
  let text = ''
  await until(async () => {
    text += read()
    return text.length === 200_000
  })
  const lines = text.trimEnd().split(/ *\n/)
  t.strictSame(
    lines,
    Array.from({ length: 200 }, (_, i) => `${i + 1}`)
  )
  t.strictSame(failures, [])
})

t.test('when the process exits, lines that wait are written', async (t) => {
  const { output, read } = openPipe(t)
  const exit = process.listeners('exit').at(-1) as () => void
  exit()
  t.equal(read(), '')
  output.write('1\n')
  output.write('2\n')
  exit()
  // Another thread writes the first line, which can come later on a busy machine.
  t.match(read(), /^2$/m)
  await output.written()
})

t.test('the service goes on with an output that fails, before anybody counts that', async (t) => {
  const full = openSync('/dev/full', 'w')
  t.teardown(() => closeSync(full))
  const output = logOutput(full)
  output.write('1\n')
  await t.resolves(output.written())
  const exit = process.listeners('exit').at(-1) as () => void
  t.doesNotThrow(exit)
})
