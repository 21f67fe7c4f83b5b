import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import type { FastifyInstance } from 'fastify'
import { httpServer } from '../../src/http-server.js'
import { buildOps } from '../../src/ops.js'
import { startApp } from '../support/api.js'
import { parseRaw } from '../support/raw.js'
import t, { type Test } from '../support/tap.js'

/** Pauses the process for 2.5 seconds. */
const pause = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_500)

/** Both listeners, each with a path. */
async function listeners(t: Test, env: Record<string, string>): Promise<[FastifyInstance, string][]> {
  const api = await startApp(t, 'postgres', env)
  const free = { host: '127.0.0.1', port: 0 }
  await api.listenOnAll(free)
  const ops = await buildOps(api)
  t.teardown(() => ops.close())
  await ops.listenOnAll(free)
  return [
    [api, '/api/alice/tasks'],
    [ops, '/live']
  ]
}

/** Opens a connection. Each call sends a request on it and returns the answer. */
function connection(t: Test, app: FastifyInstance, path: string) {
  const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  return {
    closed: once(socket, 'close'),
    async ask() {
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
      const [answer] = await once(socket, 'data')
      return parseRaw(String(answer))
    }
  }
}

t.test('an idle connection is closed after KEEP_ALIVE_SECONDS, on both listeners', async (t) => {
  for (const [app, path] of await listeners(t, { KEEP_ALIVE_SECONDS: '1' })) {
    const { ask, closed } = connection(t, app, path)
    t.match((await ask()).headers, { connection: 'keep-alive', 'keep-alive': 'timeout=1' }, path)
    await closed
  }
})

t.test(
  'a request that arrives while the process is paused is answered, though the timeout passes',
  async (t) => {
    for (const [app, path] of await listeners(t, { KEEP_ALIVE_SECONDS: '1' })) {
      const { ask, closed } = connection(t, app, path)
      const { status } = await ask()
      const answer = ask()
      // Node 24 waits a second longer. The request is sent, but not read.
      pause()
      t.equal((await answer).status, status, path)
      await closed
    }
  }
)

/**
 * Begins to read an answer, waits for 3 seconds, and then reads `more` bytes. Its messages are `null` after 2 seconds, and in
 * the end the number of bytes.
 */
const READER = `
  const { parentPort, workerData: { port, more } } = require('node:worker_threads')
  const socket = require('node:net').connect(port, '127.0.0.1')
  socket.write('GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')
  let length = 0
  let end = Infinity
  socket.on('data', (chunk) => {
    length += chunk.length
    if (length > end) socket.pause()
  })
  socket.once('data', () => {
    socket.pause()
    setTimeout(() => parentPort.postMessage(null), 2_000)
    setTimeout(() => {
      end = length + more
      socket.resume()
    }, 3_000)
  })
  // A paused socket does not keep the thread alive.
  const timer = setInterval(() => {}, 60_000)
  socket.on('error', () => {})
  socket.on('close', () => {
    clearInterval(timer)
    parentPort.postMessage(length)
  })`

/** The client reads so many bytes of a long answer during a pause that is longer than the timeout. */
async function readDuringPause(t: Test, more: number) {
  const app = httpServer({})
  t.teardown(() => app.close())
  // More than the sockets on the way hold, and one write.
  const answer = 'x'.repeat(48 * 1024 * 1024)
  app.get('/', async () => answer)
  await app.listen({ host: '127.0.0.1', port: 0 })
  app.server.timeout = 1_500
  const { port } = app.server.address() as AddressInfo
  const closed = once(app.server, 'connection').then(([socket]) => once(socket, 'close'))
  const reader = new Worker(READER, { eval: true, workerData: { port, more } })
  t.teardown(() => reader.terminate())
  // The first timeout has passed: it closes no connection whose client has begun to read.
  await once(reader, 'message')
  pause()
  return { answer, reader, closed }
}

t.test(
  'an answer that is read while the process is paused is complete, though the timeout passes',
  async (t) => {
    const { answer, reader } = await readDuringPause(t, Number.POSITIVE_INFINITY)
    const [length] = await once(reader, 'message')
    t.ok(length > answer.length, `${length} bytes`)
  }
)

t.test('a client that reads no more after the pause loses its connection', async (t) => {
  const { closed } = await readDuringPause(t, 8_000_000)
  await closed
})

t.test('by default a connection is kept longer than by common proxies', async (t) => {
  await Promise.all(
    (await listeners(t, {})).map(async ([app, path]) => {
      const { ask } = connection(t, app, path)
      const { status, headers } = await ask()
      t.match(headers, { connection: 'keep-alive', 'keep-alive': 'timeout=620' }, path)
      // Longer than the timeout of a request, which must not begin at the last answer.
      await setTimeout(12_000)
      t.equal((await ask()).status, status, path)
    })
  )
})
