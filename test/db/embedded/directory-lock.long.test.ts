import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { emptyFolder } from '../../support/process.js'
import t, { type Test } from '../../support/tap.js'

const TAKER = fileURLToPath(new URL('../../support/lock-taker.js', import.meta.url))

/** Starts a process that takes and releases locks. */
async function startTaker(t: Test): Promise<ChildProcess> {
  const taker = spawn(process.execPath, [TAKER], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  t.teardown(() => taker.kill('SIGKILL'))
  await once(taker, 'message')
  return taker
}

async function ask(taker: ChildProcess, message: object): Promise<string> {
  const answer = once(taker, 'message')
  taker.send(message)
  return (await answer)[0]
}

/** The lock file of a process that was killed. */
async function staleLock(t: Test): Promise<string> {
  const directory = emptyFolder(t)
  const taker = await startTaker(t)
  t.equal(await ask(taker, { directory, at: 0 }), 'taken')
  const exit = once(taker, 'exit')
  taker.kill('SIGKILL')
  await exit
  return readFileSync(join(directory, 'lock-1'), 'utf8')
}

t.test('exactly one of many processes takes over a stale lock', async (t) => {
  const stale = await staleLock(t)
  const takers = await Promise.all(Array.from({ length: 8 }, () => startTaker(t)))
  for (let round = 0; round < 40; round++) {
    const directory = emptyFolder(t)
    writeFileSync(join(directory, 'lock-1'), stale)
    const at = Date.now() + 20
    const answers = await Promise.all(takers.map((taker) => ask(taker, { directory, at })))
    t.strictSame(answers.sort(), ['taken', ...Array(7).fill('refused')].sort())
    await Promise.all(takers.map((taker) => ask(taker, { release: true })))
    t.notOk(
      readdirSync(directory).some((name) => name.startsWith('lock.')),
      'no draft is left'
    )
  }
})
