import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from './tap.js'

/**
 * An HTTP proxy that passes on every request but loses every `nth` answer: the connection breaks after the service has
 * done the work, as on a phone that leaves its network. Ends with the test.
 *
 * @returns its URL, and how many answers it has lost
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
