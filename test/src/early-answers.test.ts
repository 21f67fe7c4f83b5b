import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { clientOf, rowsOf, sign, startApp } from '../support/api.js'
import { until } from '../support/process.js'
import { parseRaw } from '../support/raw.js'
import t, { type Test } from '../support/tap.js'

const MB = 1_000_000
const COLLECTION = '/api/alice/tasks'
const lines = (...all: string[]) => `${all.join('\r\n')}\r\n\r\n`

/** A connection that does not read until it is resumed. */
async function open(t: Test, port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  // The errors that its writes and reads get.
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

/** Sends everything before it reads, like proxies and browsers. Rejects if the connection is reset. */
async function sendThenRead(t: Test, port: number, ...parts: (string | Buffer)[]): Promise<string> {
  const socket = await open(t, port)
  for (const part of parts) {
    await new Promise<void>((resolve, reject) => {
      socket.write(part, (error) => (error ? reject(error) : resolve()))
    })
  }
  let received = ''
  for await (const chunk of socket) received += chunk
  return received
}

t.test("an answer before the end of the request's body", async (t) => {
  const app = await startApp(t)
  await app.listenOnAll({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const authorization = `Bearer ${await sign({ sub: 'alice' })}`
  const token = `Authorization: ${authorization}`
  const type = 'Content-Type: application/json'
  const before = await rowsOf(app)

  // Started first and awaited last, because it takes 10 seconds.
  const silent = await open(t, port)
  silent.write(lines(`POST ${COLLECTION} HTTP/1.1`, 'Host: x', token, type, `Content-Length: ${MB}`))

  const refusals: [status: number, method: string, path: string, headers: Record<string, string>][] = [
    [413, 'POST', COLLECTION, { authorization, 'content-type': 'application/json' }],
    [413, 'POST', COLLECTION, { authorization, 'content-type': 'text/plain' }],
    [401, 'POST', COLLECTION, { 'content-type': 'application/json' }],
    [404, 'POST', '/api/alice', { authorization, 'content-type': 'application/json' }],
    [405, 'PUT', COLLECTION, { authorization, 'content-type': 'application/json' }]
  ]
  for (const [status, method, path, headers] of refusals) {
    const named = `${status} to ${method} ${path}, ${headers['content-type']}`

    t.test(`${named}, arrives at fetch`, async (t) => {
      for (const size of [5 * MB, 20 * MB]) {
        const url = `http://127.0.0.1:${port}${path}`
        const answer = await fetch(url, { method, headers, body: Buffer.alloc(size, ' ') })
        t.equal(answer.status, status)
        t.match(await answer.json(), { status })
      }
    })

    t.test(`${named}, arrives at a client that sends everything first`, async (t) => {
      const fields = Object.entries(headers).map((field) => field.join(': '))
      const body = Buffer.alloc(20 * MB, ' ')
      const length = `Content-Length: ${body.length}`
      for (const [version, ...more] of [
        ['HTTP/1.1', length],
        ['HTTP/1.1', length, 'Connection: close'],
        ['HTTP/1.0', length]
      ] as string[][]) {
        const head = lines(`${method} ${path} ${version}`, 'Host: x', ...fields, ...more)
        const answer = parseRaw(await sendThenRead(t, port, head, body))
        t.match(answer, { status, headers: { connection: 'close' }, json: { status } }, more.join())
      }
      const head = lines(
        `${method} ${path} HTTP/1.1`,
        'Host: x',
        ...fields,
        'Transfer-Encoding: chunked',
        'Connection: close'
      )
      const size = `${body.length.toString(16)}\r\n`
      const answer = parseRaw(await sendThenRead(t, port, head, size, body, '\r\n0\r\n\r\n'))
      t.match(answer, { status, json: { status } }, 'chunked')
    })
  }

  t.test('answers to GET and HEAD with a body arrive', async (t) => {
    const body = Buffer.alloc(20 * MB, ' ')
    for (const method of ['GET', 'HEAD']) {
      for (const [status, ...more] of [[200, token], [401]] as [number, ...string[]][]) {
        const head = lines(
          `${method} ${COLLECTION} HTTP/1.1`,
          'Host: x',
          `Content-Length: ${body.length}`,
          ...more
        )
        t.equal(Number((await sendThenRead(t, port, head, body)).split(' ')[1]), status, method)
      }
    }
  })

  t.test('answers to broken requests arrive', async (t) => {
    const filler = Buffer.alloc(20 * MB, 'a')
    for (const [status, start] of [
      [431, 'GET / HTTP/1.1\r\nHost: x\r\nX-Large: '],
      [400, 'garbage\r\n\r\n'],
      [
        400,
        `${lines(`POST ${COLLECTION} HTTP/1.1`, 'Host: x', token, type, 'Transfer-Encoding: chunked')}zz\r\n`
      ]
    ] as const) {
      const answer = parseRaw(await sendThenRead(t, port, start, filler))
      t.match(answer, { status, json: { code: 'bad_request' } }, start.slice(0, 20))
    }
  })

  t.test('the connection stays open if the whole body arrived with the head', async (t) => {
    const body = '{"title":"a"}'
    const length = `Content-Length: ${body.length}`
    const received = await sendThenRead(
      t,
      port,
      lines(`POST ${COLLECTION} HTTP/1.1`, 'Host: x', type, length) +
        body +
        lines(`GET ${COLLECTION} HTTP/1.1`, 'Host: x', token, 'Connection: close')
    )
    t.strictSame(
      [...received.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
      ['401', '200']
    )
  })

  t.test('data after the last answer is never parsed as a request', async (t) => {
    const alice = await clientOf(app, 'alice')
    const { json: task } = await alice('POST', '', { title: 'a' })
    const inside = lines(`DELETE ${COLLECTION}/${task.id} HTTP/1.1`, 'Host: x', token)
    const body = Buffer.alloc(100, ' ')
    for (const [path, status] of [
      [COLLECTION, 401],
      ['/api/alice', 401]
    ] as const) {
      const socket = await open(t, port)
      socket.write(lines(`POST ${path} HTTP/1.1`, 'Host: x', type, `Content-Length: ${body.length}`))
      const [answer] = await once(socket, 'data')
      t.equal(parseRaw(String(answer)).status, status)
      socket.end(Buffer.concat([body, Buffer.from(inside)]))
      await once(socket, 'close')
    }
    t.equal((await alice('DELETE', `/${task.id}`)).status, 204, 'the task is still there')
  })

  t.test('a client that never stops sending gets its answer, and is disconnected', async (t) => {
    const socket = await open(t, port)
    let received = ''
    socket.on('data', (chunk) => {
      received += chunk
    })
    const failed = once(socket, 'error')
    const piece = Buffer.alloc(MB, ' ')
    let sent = 0
    const sendOn = () => {
      sent++
      socket.write(piece, (error) => error || sendOn())
    }
    socket.write(
      lines(`POST ${COLLECTION} HTTP/1.1`, 'Host: x', token, type, `Content-Length: ${1e12}`),
      sendOn
    )
    await failed.catch(() => {})
    t.equal(parseRaw(received).status, 413)
    t.ok(sent >= 20 && sent < 60, `after ${sent} MB`)
  })

  t.test('a client that sends nothing more is answered at once, and disconnected later', async (t) => {
    let received = ''
    silent.on('data', (chunk) => {
      received += chunk
    })
    await once(silent, 'end')
    t.equal(parseRaw(received).status, 413)
    const connections = () =>
      new Promise<number>((resolve) => app.server.getConnections((_error, count) => resolve(count)))
    await until(async () => (await connections()) === 0)
  })

  t.strictSame(await rowsOf(app), before, 'nothing was stored')
})
