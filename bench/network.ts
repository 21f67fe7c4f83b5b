// The network between a server and PostgreSQL, in a process of its own, so that it uses none of their CPU time.
import { startProxy } from '../test/support/tcp-proxy.js'

process.once('disconnect', () => process.exit())
const proxy = await startProxy({ teardown: () => {} }, process.argv[2] as string)
process.on('message', (milliseconds: number) => {
  proxy.delay = milliseconds
})
process.send?.(proxy.url)
