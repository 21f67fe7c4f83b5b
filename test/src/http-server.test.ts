import { type AddressInfo, connect } from 'node:net'
import type { FastifyRequest } from 'fastify'
import { httpServer } from '../../src/http-server.js'
import { QUEUED } from '../../src/unread-answers.js'
import t from '../support/tap.js'
import { usedMemory } from '../support/used-memory.js'

/** Number of connections, and of requests on each that wait behind another: Node still reads so many. */
const CONNECTIONS = 20
const PIPELINED = 20

/** 64 KiB of JSON. */
const OBJECTS = `{"z":[${'{},'.repeat(21_800)}{}]}`
const names = (count: number, separator: string) =>
  Array.from({ length: count }, (_, n) => n.toString(36)).join(separator)
const post = (content: string, type = '') =>
  `POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: ${content.length}\r\n${type}\r\n${content}`

for (const { name, request } of [
  { name: 'JSON', request: post(OBJECTS, 'Content-Type: application/json\r\n') },
  { name: 'a body that is not read', request: post('x'.repeat(60_000), 'Authorization: no\r\n') },
  { name: 'headers', request: `GET / HTTP/1.1\r\nHost: x\r\n${names(900, ':\r\n')}:\r\n\r\n` },
  { name: 'a query', request: `GET /?${names(3_900, '&')} HTTP/1.1\r\nHost: x\r\n\r\n` }
]) {
  t.test(
    `a queued answer takes about the memory that is counted, whatever its request has: ${name}`,
    async (t) => {
      const app = httpServer({})
      const requests: FastifyRequest[] = []
      // With such a hook, Fastify keeps the request until its answer is sent.
      app.addHook('onResponse', (_request, _reply, done) => done())
      app.addHook('onRequest', (request, reply, done) => {
        if (request.headers.authorization === 'no') reply.code(401).send('no token')
        else done()
      })
      app.get('/wait', () => new Promise(() => {}))
      app.get('/', async () => 'answer')
      app.post('/tasks', (_request, reply) => reply.code(422).send('not a task'))
      let sent = 0
      app.addHook('onSend', (request, _reply, _payload, done) => {
        sent++
        requests.push(request)
        done()
      })
      t.teardown(() => app.close())
      await app.listen({ host: '127.0.0.1', port: 0 })
      const { port } = app.server.address() as AddressInfo
      // The first request of each connection is not answered, so the other answers wait.
      const send = async (connections: number) => {
        const count = sent + connections * PIPELINED
        for (let n = 0; n < connections; n++) {
          const socket = connect(port, '127.0.0.1').on('error', () => {})
          t.teardown(() => socket.destroy())
          socket.pause().write(`GET /wait HTTP/1.1\r\nHost: x\r\n\r\n${request.repeat(PIPELINED)}`)
        }
        while (sent < count || requests.some(({ raw }) => !raw.complete)) await new Promise(setImmediate)
        requests.length = 0
        for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate)
      }
      // The first requests compile the code.
      await send(2)
      const before = usedMemory()
      await send(CONNECTIONS)
      const each = (usedMemory() - before) / (CONNECTIONS * PIPELINED)
      const counted = QUEUED + (request.startsWith('GET') ? request.indexOf(' HTTP') : 0)
      t.comment(`${each.toFixed()} of ${counted} bytes`)
      // In a process that ran other tests before, Node 26 takes up to 3.6 KB more.
      t.ok(each < 2 * counted, `${each.toFixed()} bytes each; ${counted} are counted`)
    }
  )
}
