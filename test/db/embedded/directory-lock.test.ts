import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { lockDirectory } from '../../../db/embedded/directory-lock.js'
import { StartError } from '../../../db/errors.js'
import { emptyFolder } from '../../support/process.js'
import t, { type Test } from '../../support/tap.js'

/** The lock file of this process, which tests change into another holder's. */
function ownLock(t: Test): Record<string, unknown> {
  const directory = emptyFolder(t)
  lockDirectory(directory)
  return JSON.parse(readFileSync(join(directory, 'lock-1'), 'utf8'))
}

async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ['-e', ''])
  await once(child, 'exit')
  return child.pid as number
}

t.test('one process at a time holds the lock, and releases it', async (t) => {
  const directory = emptyFolder(t)
  const release = lockDirectory(directory)
  t.throws(() => lockDirectory(directory), StartError)
  t.throws(() => lockDirectory(directory), {
    message: new RegExp(`in use by process ${process.pid} on ${hostname()}`)
  })
  t.strictSame(readdirSync(directory), ['lock-1'])
  release()
  t.equal(readFileSync(join(directory, 'lock-1'), 'utf8'), '')
  lockDirectory(directory)()
  t.strictSame(readdirSync(directory), ['lock-2'], 'and only the newest file is kept')
})

t.test('a late release does not remove the lock of the next holder', async (t) => {
  const directory = emptyFolder(t)
  const release = lockDirectory(directory)
  release()
  const next = lockDirectory(directory)
  release()
  t.throws(() => lockDirectory(directory), StartError)
  next()
})

t.test('an existing lock', async (t) => {
  const mine = ownLock(t)
  const linux = process.platform === 'linux'
  const cases: [what: string, content: string, holds: boolean][] = [
    ['of a living process holds', JSON.stringify(mine), true],
    [
      'of another host holds: its processes cannot be seen',
      JSON.stringify({ ...mine, host: 'elsewhere', pid: await deadPid() }),
      true
    ],
    ['of a dead process does not hold', JSON.stringify({ ...mine, pid: await deadPid() }), false],
    // Only Linux has the start time of a process.
    ['of an earlier process with our own id does not hold', JSON.stringify({ ...mine, began: '1' }), !linux],
    [
      'of an earlier process with an id that is used again does not hold',
      JSON.stringify({ ...mine, pid: process.ppid, began: '1' }),
      !linux
    ],
    ['that is empty does not hold', '', false],
    ['that is cut off does not hold', '{"id":"', false],
    ['that is no lock at all does not hold', '42', false],
    ['that is null does not hold', 'null', false],
    ['without a process does not hold', '{}', false]
  ]
  for (const [what, content, holds] of cases) {
    t.test(what, async (t) => {
      const directory = emptyFolder(t)
      writeFileSync(join(directory, 'lock-9'), content)
      if (holds) {
        t.throws(() => lockDirectory(directory), StartError)
        t.equal(readFileSync(join(directory, 'lock-9'), 'utf8'), content, 'and stays as it is')
        t.strictSame(readdirSync(directory), ['lock-9'])
      } else {
        const release = lockDirectory(directory)
        t.match(JSON.parse(readFileSync(join(directory, 'lock-10'), 'utf8')), { pid: process.pid })
        release()
        t.strictSame(readdirSync(directory), ['lock-10'])
      }
    })
  }
})

t.test('the error about a lock of another host says how to remove it', async (t) => {
  const directory = emptyFolder(t)
  const holder = { ...ownLock(t), host: 'replaced-container', pid: 7 }
  writeFileSync(join(directory, 'lock-1'), JSON.stringify(holder))
  let line = ''
  try {
    lockDirectory(directory)
  } catch (error) {
    line = (error as Error).message
  }
  t.match(line, `is in use by process 7 on replaced-container.`)
  const [, named = ''] = /no longer runs, .*, empty the file (.+)\.$/.exec(line) ?? []
  writeFileSync(named, '')
  lockDirectory(directory)()
})
