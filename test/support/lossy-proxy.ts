import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from './tap.js'

/**
 * An HTTP proxy that forwards every request, but closes the connection instead of every `nth` answer. The service has
 * done the work by then, as when a phone loses its network. It ends with the test.
 *
 * @returns its URL, and the number of lost answers
 */
export async function lossyProxy(t: Test, target: string, nth: number) {
  let answers = 0
  let lost = 0
  const server = createServer((incoming, outgoing) => {
    const { hostname, port } = new URL(target)
    const { method, url: path, headers } = incoming
    const passed = request({ hostname, port, method, path, headers }, (answer) => {
      answers++
      if (answers % nth === 0) {
        lost++
        answer.resume()
        outgoing.destroy()
        return
      }
      outgoing.writeHead(answer.statusCode as number, answer.headers)
      answer.pipe(outgoing)
    })
    incoming.pipe(passed)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, lost: () => lost }
}
