import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { emptyFolder, startProcess } from './process.js'
import t, { type Test } from './tap.js'

const PROGRAMS: [what: string, fails: boolean, code: string][] = [
  ['an exception', true, 'setTimeout(() => { throw new Error("no") })'],
  ['a rejection', true, 'Promise.reject(new Error("no"))'],
  ['an error event', true, 'new (require("node:events"))().emit("error", new Error("no"))'],
  [
    'what the service logs of them',
    true,
    'console.log(`{"level":60,"msg":"stopping after an error that nothing caught"}`)'
  ],
  ['an exit code', false, 'process.exitCode = 1']
]

for (const [what, fails, code] of PROGRAMS) {
  t.test(`${what} in a process ${fails ? 'fails' : 'does not fail'} the test that started it`, async (t) => {
    const { program, teardown } = await start(t, code)
    await program.exit()
    if (fails) await t.rejects(teardown(), /an error that nothing caught/)
    else await t.resolves(teardown())
  })
}

t.test('a process that ends by itself fails the test that started it', async (t) => {
  const { program, teardown } = await start(t, 'console.log("its output"); process.exitCode = 3')
  await once(program.process, 'close')
  await t.rejects(teardown(), /ended by itself \(3\):\nits output/)
})

/** Starts a program whose teardown the test calls itself. */
async function start(t: Test, code: string) {
  const file = join(emptyFolder(t), 'program.cjs')
  writeFileSync(file, code)
  const ends: (() => unknown)[] = []
  const program = await startProcess(
    { teardown: (end) => void ends.push(end as () => unknown) },
    {},
    { file }
  )
  return {
    program,
    async teardown() {
      for (const end of ends.reverse()) await end()
    }
  }
}
