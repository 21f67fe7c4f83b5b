import { lockDirectory } from '../../db/embedded/directory-lock.js'
import { StartError } from '../../db/errors.js'

// A process that takes the lock of a folder at a given time, when its parent tells it to, and reports the result.
let release = () => {}
process.on('message', ({ directory, at }: { directory?: string; at: number }) => {
  if (directory === undefined) {
    release()
    process.send?.('released')
    return
  }
  release = () => {}
  while (Date.now() < at);
  try {
    release = lockDirectory(directory)
    process.send?.('taken')
  } catch (error) {
    process.send?.(error instanceof StartError ? 'refused' : String(error))
  }
})
process.send?.('ready')
