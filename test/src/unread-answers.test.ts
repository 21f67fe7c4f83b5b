import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { PassThrough, Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { httpServer } from '../../src/http-server.js'
import { stopClock } from '../support/clock.js'
import t, { type Test } from '../support/tap.js'

/** More than the kernel takes from an answer that nobody reads. Eight of them are the limit. */
const LARGE = 'x'.repeat(8 * 1024 * 1024 - 16)
/** Sends a request, and `LARGE` is the answer. */
const REQUEST = 'GET /large HTTP/1.1\r\nHost: x\r\n\r\n'

/** 530 answers to it are longer than `LARGE`. */
const SMALL_REQUEST = 'GET /small HTTP/1.1\r\nHost: x\r\n\r\n'

async function start(t: Test) {
  const output = new PassThrough()
  const app = httpServer({ logger: { level: 'warn', stream: output } })
  app.decorateRequest('user', null as never)
  app.addHook('onRequest', async (request) => {
    const sub = request.headers.authorization
    if (sub !== undefined) request.user = { sub }
  })
  app.get('/large', async () => LARGE)
  app.get('/late', async () => sleep(50, LARGE))
  app.get('/empty', (_request, reply) => reply.code(304).send())
  app.get('/stream', async () => Readable.from([Buffer.alloc(60_000)]))
  app.get('/small', async () => 'x'.repeat(16_000))
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  return {
    log() {
      let text = ''
      // On Node 26 a call returns one chunk.
      for (let chunk = output.read(); chunk !== null; chunk = output.read()) text += chunk
      return text
    },
    /** Sends these bytes, and reads no more than the answer's beginning. */
    async unread(bytes: string): Promise<Socket> {
      const socket = connect(port, '127.0.0.1').on('error', () => {})
      t.teardown(() => socket.destroy())
      socket.write(bytes)
      await once(socket, 'readable')
      return socket
    }
  }
}

/** Reads until an answer is complete, or the connection ends. */
async function isComplete(socket: Socket): Promise<boolean> {
  let length = 0
  for await (const chunk of socket) {
    length += chunk.length
    if (length > LARGE.length) return true
  }
  return false
}

t.test('the connection that waited longest is closed if unread answers take too much memory', async (t) => {
  const { unread, log } = await start(t)
  const sockets: Socket[] = []
  for (let i = 0; i < 10; i++) sockets.push(await unread(REQUEST))
  t.strictSame(await Promise.all(sockets.map(isComplete)), [false, false, ...Array(8).fill(true)])
  const lines = log().trim().split('\n')
  t.equal(lines.length, 1, 'one line a minute')
  t.match(JSON.parse(lines[0] as string), {
    count: 1,
    msg: 'connections were closed: their clients did not read the answers'
  })
})

t.test('only the user who has the most unread answers loses a connection', async (t) => {
  const { unread } = await start(t)
  const requestBy = (user: string) => REQUEST.replace('\r\n\r\n', `\r\nAuthorization: ${user}\r\n\r\n`)
  const bob = await unread(requestBy('bob'))
  const anonymous = await unread(REQUEST)
  const alice: Socket[] = []
  for (let i = 0; i < 8; i++) alice.push(await unread(requestBy('alice')))
  t.strictSame(await Promise.all([bob, anonymous].map(isComplete)), [true, true])
  t.strictSame(await Promise.all(alice.map(isComplete)), [false, false, ...Array(6).fill(true)])
})

t.test('the log counts connections, however many answers each has', async (t) => {
  const { advance } = stopClock(t)
  const { unread, log } = await start(t)
  // Two have room. Each further one closes the oldest.
  const sockets: Socket[] = []
  const open = async () => sockets.push(await unread(REQUEST.repeat(3)))
  for (let i = 0; i < 4; i++) await open()
  advance(60_000)
  await open()
  t.strictSame(await Promise.all(sockets.map(isComplete)), [false, false, false, true, true])
  const counts = log()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).count)
  t.strictSame(counts, [1, 2])
})

t.test('answers that were read or left no longer count', async (t) => {
  const { unread } = await start(t)
  for (let i = 0; i < 4; i++) {
    t.ok(await isComplete(await unread(REQUEST)))
    const left = await unread(REQUEST.repeat(3))
    left.destroy()
    await once(left, 'close')
  }
  // The service has noticed that the others left.
  t.ok(await isComplete(await unread(REQUEST)))
  const sockets: Socket[] = []
  for (let i = 0; i < 8; i++) sockets.push(await unread(REQUEST))
  t.strictSame(await Promise.all(sockets.map(isComplete)), Array(8).fill(true))
})

t.test('answers to clients that left before do not count', async (t) => {
  const { unread, log } = await start(t)
  for (let i = 0; i < 5; i++) {
    // The client leaves after the beginning of the first answer.
    const left = await unread(`${REQUEST}${REQUEST.replace('large', 'late').repeat(2)}`)
    left.destroy()
  }
  await sleep(200)
  t.ok(await isComplete(await unread(REQUEST)))
  t.equal(log(), '')
})

t.test('a connection may read any number of answers', async (t) => {
  const { unread } = await start(t)
  const socket = await unread(REQUEST)
  for (let i = 0; i < 10; i++) {
    let length = 0
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      length += chunk.length
      if (length > LARGE.length) break
    }
    t.ok(length > LARGE.length)
    socket.write(REQUEST)
  }
})

t.test('answers to pipelined requests count, also small ones', async (t) => {
  const { unread } = await start(t)
  t.notOk(await isComplete(await unread(REQUEST.repeat(10))))
  const sockets: Socket[] = []
  for (let i = 0; i < 18; i++) sockets.push(await unread(SMALL_REQUEST.repeat(530)))
  const complete = await Promise.all(sockets.map(isComplete))
  t.strictSame([complete[0], complete[17]], [false, true])
})

t.test('a queued answer counts with what it holds besides its payload', async (t) => {
  const { unread } = await start(t)
  const sockets: Socket[] = []
  const empty = REQUEST.replace('large', 'empty')
  for (let i = 0; i < 5; i++) sockets.push(await unread(REQUEST + empty.repeat(1_500)))
  const complete = await Promise.all(sockets.map(isComplete))
  t.strictSame([complete[0], complete[4]], [false, true])
})

t.test('streamed answers count, though their length is not known', async (t) => {
  const { unread } = await start(t)
  const streamed = REQUEST.replace('large', 'stream')
  const sockets: Socket[] = []
  for (let i = 0; i < 3; i++) sockets.push(await unread(REQUEST + streamed.repeat(100)))
  t.strictSame(await Promise.all(sockets.map(isComplete)), [false, true, true])
})

t.test('streamed answers that were read no longer count', async (t) => {
  const { unread } = await start(t)
  const streamed = REQUEST.replace('large', 'stream')
  const socket = await unread(streamed)
  let length = 0
  for (let i = 0; i < 5; i++) {
    socket.write(streamed.repeat(150))
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      length += chunk.length
      if (length > (i + 1) * 150 * 60_000) break
    }
  }
  t.ok(length > 5 * 150 * 60_000, `${length} bytes`)
})
