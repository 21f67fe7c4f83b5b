import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { emptyFolder, startProcess } from './process.js'
import t from './tap.js'

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
    const file = join(emptyFolder(t), 'program.cjs')
    writeFileSync(file, code)
    const ends: (() => unknown)[] = []
    const program = await startProcess(
      { teardown: (end) => void ends.push(end as () => unknown) },
      {},
      { file }
    )
    await program.exit()
    const ended = (async () => {
      for (const end of ends.reverse()) await end()
    })()
    if (fails) await t.rejects(ended, /an error that nothing caught/)
    else await t.resolves(ended)
  })
}
