import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { logOutput } from '../../src/log-output.js'
import { emptyFolder } from './process.js'
import type { Test } from './tap.js'

/** An output for log lines that is a pipe, whose reader can leave and come back. To write without a reader fails with EPIPE. */
export function openPipe(t: Test) {
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
