// The soak run loads this into the service. On SIGWINCH it collects all garbage, and writes the size of the heap.
// SIGUSR2 would end the service, and SIGUSR1 is Node's own.
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc')

process.on('SIGWINCH', () => {
  gc()
  // The first collection runs finalisers, and the second frees the memory that these release.
  setImmediate(() => {
    gc()
    console.log(`heap after collection: ${process.memoryUsage().heapUsed}`)
  })
})
