import { once } from 'node:events'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { gracefulStop } from '../../src/graceful-stop.js'
import { httpServer } from '../../src/http-server.js'
import { portOf } from '../../src/ops.js'
import t, { type Test } from '../support/tap.js'

const GET = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'

/** Unlike `once`, this does not reject if the client resets the connection. */
const closeOf = ({ raw }: FastifyRequest) => new Promise((resolve) => raw.socket.once('close', resolve))

/** A server that answers nothing by itself, and a client that has pipelined so many requests. */
async function startWith(t: Test, requests: number) {
  const app = httpServer({})
  const replies: FastifyReply[] = []
  const closed: FastifyReply[] = []
  app.get('/', (_request, reply) => {
    replies.push(reply)
    reply.raw.on('close', () => closed.push(reply))
  })
  const stop = gracefulStop(app, 60_000)
  await app.listenOnAll({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const client = connect(portOf(app), '127.0.0.1')
  client.on('error', () => {})
  client.write(GET.repeat(requests))
  while (replies.length < requests) await once(app.server, 'request')
  return { app, replies, closed, stop, client }
}

t.test('a stop waits until a response that just broke off has emitted its close', async (t) => {
  const { replies, closed, stop } = await startWith(t, 1)
  replies[0]?.raw.destroy()
  await stop()
  t.strictSame(closed, replies)
})

t.test('if a client leaves, the responses queued behind another are closed too', async (t) => {
  const { app, replies, closed, stop, client } = await startWith(t, 3)
  const left = closeOf((replies[0] as FastifyReply).request)
  client.destroy()
  await left
  await new Promise(setImmediate)
  t.strictSame(new Set(closed), new Set(replies))
  t.equal(closed.length, replies.length)
  t.ok(replies.every(({ raw }) => raw.destroyed && raw.closed))
  const late = new Readable({ read() {} })
  replies[2]?.send(late)
  await new Promise((resolve) => late.once('close', resolve))
  // This connection is not idle for Node. A stop that counts a request would wait for the grace period.
  const silent = connect(portOf(app), '127.0.0.1')
  t.teardown(() => silent.destroy())
  await once(app.server, 'connection')
  await stop()
})

t.test('each response is closed once, also one that was queued before', async (t) => {
  const { replies, closed, client } = await startWith(t, 4)
  const [first, second] = replies as [FastifyReply, FastifyReply]
  const left = closeOf(first.request)
  const answered = once(second.raw, 'close')
  client.resume()
  second.send('2')
  first.send('1')
  await answered
  // Now the third has the connection, and the fourth is queued.
  client.destroy()
  await left
  await new Promise(setImmediate)
  t.strictSame(new Set(closed), new Set(replies))
  t.equal(closed.length, replies.length)
})

t.test('a stop answers a request that has arrived but was not read yet', async (t) => {
  const { app, replies, stop, client } = await startWith(t, 0)
  const [served] = await once(app.server, 'connection')
  client.write(GET)
  const stopped = stop()
  // Everything that is due after the longest turn of the event loop is now due before the request is read.
  const end = performance.now() + 100
  while (performance.now() < end);
  await Promise.race([once(app.server, 'request'), once(served, 'close')])
  t.equal(replies.length, 1)
  replies[0]?.send('answer')
  t.match(await text(client), /answer$/)
  await stopped
})

for (const [order, name] of [
  [[0, 1, 2], 'in their order'],
  [[2, 1, 0], 'the latest first']
] as const) {
  t.test(`a stop answers all requests that wait behind another, ${name}`, async (t) => {
    const { app, replies, stop, client } = await startWith(t, 3)
    const stopped = stop()
    while (app.server.listening) await new Promise(setImmediate)
    for (const n of order) replies[n]?.send(`answer ${n}`)
    const received = await text(client)
    t.strictSame(received.match(/answer \d/g), ['answer 0', 'answer 1', 'answer 2'])
    t.match(received, /^connection: close\r\n(.+\r\n)*\r\nanswer 2$/im)
    await stopped
  })
}

/** Sends a request whose answer has arrived, so that the connection is idle. */
async function startIdle(t: Test) {
  const started = await startWith(t, 1)
  started.replies.pop()?.send('answer')
  await once(started.client, 'data')
  return started
}

t.test('a stop answers a request on an idle connection that was not read yet', async (t) => {
  const { app, replies, stop, client } = await startIdle(t)
  client.write(GET)
  const stopped = stop()
  await Promise.race([once(app.server, 'request'), once(client, 'close')])
  t.equal(replies.length, 1)
  replies[0]?.send('answer')
  t.match(await text(client), /^HTTP\/1.1 200 OK\r\n(.+\r\n)*connection: close\r\n(.+\r\n)*\r\nanswer$/i)
  await stopped
})

t.test('a stop still answers on connections that were idle when it began', async (t) => {
  const { app, replies, stop, client } = await startIdle(t)
  const stopped = stop()
  while (app.server.listening) await new Promise(setImmediate)
  client.write(GET)
  await Promise.race([once(app.server, 'request'), once(client, 'close')])
  t.equal(replies.length, 1)
  replies[0]?.send('answer')
  t.match(await text(client), /answer$/)
  await stopped
})

t.test('a stop ends while a connection is idle', async (t) => {
  const { stop, client } = await startIdle(t)
  client.resume()
  const ended = once(client, 'end')
  await stop()
  await ended
})
