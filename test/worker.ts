import { once } from 'node:events'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { runWithin } from './support/tap.js'

// Runs test files one after another, each as a test with the file's name, until run.ts has no more. Importing the app
// takes a second, which each worker pays once.

/** A file that run.ts assigns. */
export interface Assignment {
  name: string
  compiled: string
  timeoutMs: number
}

// Each file has a timeout of its own.
t.setTimeout(0)

for (;;) {
  // tap would let the process end although the channel to its parent is open.
  process.channel?.ref()
  process.send?.('ready')
  const [assignment] = (await once(process, 'message')) as [Assignment | 'end']
  if (assignment === 'end') break
  const { name, compiled, timeoutMs } = assignment
  await t.test(name, { timeout: timeoutMs }, async (t) => {
    runWithin(t)
    await import(pathToFileURL(compiled).href)
  })
}
process.disconnect()
