// Loaded into the service by the soak run: on SIGWINCH it collects all garbage, and writes what is left on the heap. Not
// on SIGUSR2, which ends the service, nor on SIGUSR1, which is Node's own.
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc')

process.on('SIGWINCH', () => {
  gc()
  // What finalizers let go of is garbage from now on.
  setImmediate(() => {
    gc()
    console.log(`heap after collection: ${process.memoryUsage().heapUsed}`)
  })
})
