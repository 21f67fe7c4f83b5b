import { once } from 'node:events'
import { createServer, connect as tcp } from 'node:net'
import t from './tap.js'
import { startProxy } from './tcp-proxy.js'

t.test('a delay also applies to open connections, and keeps the order', async (t) => {
  const echo = createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(0, '127.0.0.1')
  t.teardown(() => echo.close())
  await once(echo, 'listening')
  const { port } = echo.address() as { port: number }
  const proxy = await startProxy(t, `tcp://127.0.0.1:${port}`)
  const socket = tcp(Number(new URL(proxy.url).port), '127.0.0.1')
  let text = ''
  socket.setEncoding('utf8').on('data', (chunk) => {
    text += chunk
  })
  /** Sends characters as separate chunks, and waits until all have returned. */
  async function roundTrip(characters: string, between = () => {}): Promise<number> {
    const began = performance.now()
    const expected = text + characters
    for (const character of characters) {
      socket.write(character)
      // The proxy receives this chunk before the delay changes.
      await new Promise((resolve) => setTimeout(resolve, 20))
      between()
    }
    while (text.length < expected.length) await once(socket, 'data')
    t.equal(text, expected)
    return performance.now() - began
  }

  await roundTrip('a')
  proxy.delay = 200
  t.ok((await roundTrip('b')) >= 390, 'there and back')
  proxy.delay = 300
  await roundTrip('cdefgh', () => {
    proxy.delay = Math.max(0, proxy.delay - 60)
  })
  socket.destroy()
})

t.test('a TLS handshake hangs or is cut', async (t) => {
  const proxy = await startProxy(t, 'tcp://127.0.0.1:1')
  for (const mode of ['silent handshake', 'cut handshake'] as const) {
    proxy.mode = mode
    const socket = tcp(Number(new URL(proxy.url).port), '127.0.0.1')
    socket.write('request for TLS')
    t.equal(String(...(await once(socket, 'data'))), 'S')
    const closed = once(socket, 'close').then(() => 'closed')
    socket.write('first message of a handshake')
    // A hanging handshake gets no answer, and stays open until the proxy closes it.
    const waited = new Promise((resolve) => setTimeout(resolve, 200))
    if (mode === 'silent handshake') {
      t.equal(await Promise.race([closed, waited]), undefined)
      proxy.cut()
    }
    t.equal(await closed, 'closed')
  }
})

t.test('a new connection while the proxy is frozen gets its answers after the thaw', async (t) => {
  const echo = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1')
  t.teardown(() => echo.close())
  await once(echo, 'listening')
  const { port } = echo.address() as { port: number }
  const proxy = await startProxy(t, `tcp://127.0.0.1:${port}`)
  proxy.mode = 'frozen'
  const socket = tcp(Number(new URL(proxy.url).port), '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.write('held')
  const answer = once(socket, 'data').then(([data]) => String(data))
  const waited = new Promise((resolve) => setTimeout(resolve, 200))
  t.equal(await Promise.race([answer, waited]), undefined)
  proxy.mode = 'pass'
  proxy.thaw()
  t.equal(await answer, 'held')
})
