import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { logOutput } from '../../src/log-output.js'
import { emptyFolder, until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

/** A pipe whose reader can leave and come back. To write without a reader fails with EPIPE. */
function pipe(t: Test) {
  const path = join(emptyFolder(t), 'pipe')
  execFileSync('mkfifo', [path])
  const open = () => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  let reader = open()
  const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
  const output = logOutput(writer)
  const failures: string[] = []
  output.onFailure((kind) => failures.push(kind))
  t.teardown(() => {
    closeSync(reader)
    closeSync(writer)
  })
  return {
    output,
    failures,
    leave: () => closeSync(reader),
    comeBack() {
      reader = open()
    },
    read() {
      const buffer = Buffer.alloc(100_000)
      try {
        return buffer.toString('utf8', 0, readSync(reader, buffer))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return ''
        throw error
      }
    }
  }
}

t.test('lines are written in their order', async (t) => {
  const { output, failures, read } = pipe(t)
  await output.written()
  output.write('1\n')
  output.write('2\n')
  await output.written()
  t.equal(read(), '1\n2\n')
  t.strictSame(failures, [])
})

t.test('a line that cannot be written is tried again with the next line', async (t) => {
  const { output, failures, leave, comeBack, read } = pipe(t)
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
  const { output, failures, leave, comeBack, read } = pipe(t)
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

t.test('the end waits as long as a slow reader takes lines', async (t) => {
  const { output, failures, read } = pipe(t)
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
  const { output, failures, read } = pipe(t)
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
