// Loaded into the service by the soak run: on SIGUSR2 it collects all garbage, and writes what is left on the heap.
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc')

process.on('SIGUSR2', () => {
  gc()
  // What finalizers let go of is garbage from now on.
  setImmediate(() => {
    gc()
    console.log(`heap after collection: ${process.memoryUsage().heapUsed}`)
  })
})
