import { once } from 'node:events'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { runWithin } from './support/tap.js'

// Runs test files one after the other, each as a test of that name, until run.ts has no more of them. To import the app
// takes a second of processor, which each worker pays once.

/** A file that run.ts hands out. */
export interface Assignment {
  name: string
  compiled: string
  timeoutMs: number
}

// The files have a time limit each.
t.setTimeout(0)

for (;;) {
  // tap lets a process end although the channel to its parent is open.
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
