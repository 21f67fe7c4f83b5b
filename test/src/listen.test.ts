import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { httpServer } from '../../src/http-server.js'
import { parseRaw, sendRaw } from '../support/raw.js'
import t from '../support/tap.js'
import '../support/addresses.js'

const lines = (...all: string[]) => `${all.join('\r\n')}\r\n\r\n`

t.test('an address that this machine does not have is skipped, and one in use is an error', async (t) => {
  const answer = { status: 404 }
  const request = lines('GET / HTTP/1.1', 'Host: x', 'Connection: close')

  const partly = httpServer({})
  t.teardown(() => partly.close())
  await partly.listenOnAll({ host: 'partly.test', port: 0 })
  const { address, port } = partly.server.address() as AddressInfo
  t.equal(address, '127.0.0.1')
  t.match(parseRaw(await sendRaw(address, port, request)), answer)

  const elsewhere = httpServer({})
  t.teardown(() => elsewhere.close())
  await t.rejects(elsewhere.listenOnAll({ host: 'elsewhere.test', port: 0 }), { code: 'EADDRNOTAVAIL' })

  const other = createServer().listen(0, '::1')
  t.teardown(() => other.close())
  await once(other, 'listening')
  const both = httpServer({})
  t.teardown(() => both.close())
  const taken = (other.address() as AddressInfo).port
  await t.rejects(both.listenOnAll({ host: 'localhost', port: taken }), { code: 'EADDRINUSE' })
})
