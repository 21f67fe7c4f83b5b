import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { PassThrough } from 'node:stream'
import { httpServer } from '../../src/http-server.js'
import t from '../support/tap.js'

t.test('a broken request behind a running answer adds nothing to that answer', async (t) => {
  const app = httpServer({})
  t.teardown(() => app.close())
  const body = new PassThrough()
  app.get('/', (_request, reply) => reply.send(body))
  app.get('/next', async () => 'next')
  await app.listenOnAll({ host: '127.0.0.1', port: 0 })
  const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`

  const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  const closed = once(socket, 'close')
  let received = ''
  socket.on('data', (chunk) => {
    received += chunk
  })
  socket.write(get('/'))
  body.write('begin')
  await once(socket, 'data')
  // The second request is parsed, and waits for its turn.
  socket.write(`${get('/next')}garbage\r\n\r\n`)
  await closed
  t.match(received, /^HTTP\/1\.1 200 /)
  t.notMatch(received, '400')
  t.notMatch(received, /\r\n0\r\n\r\n$/, 'the client sees that the answer is not whole')
})
