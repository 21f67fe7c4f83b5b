import { once } from 'node:events'
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { SECRET, sign } from '../support/api.js'
import { emptyDatabase } from '../support/databases.js'
import { startProcess } from '../support/process.js'
import { parseRaw, sendRaw } from '../support/raw.js'
import t from '../support/tap.js'

const ADDRESSES_OF_NAMES = fileURLToPath(new URL('../support/addresses.js', import.meta.url))
const ADDRESSES = ['127.0.0.1', '::1']

const lines = (...all: string[]) => `${all.join('\r\n')}\r\n\r\n`

t.test('a host with two addresses is served on both', async (t) => {
  const env = {
    JWT_SECRET: SECRET,
    DATABASE_URL: await emptyDatabase(t),
    HOST: 'localhost',
    OPS_HOST: 'localhost',
    NODE_OPTIONS: `--import=${ADDRESSES_OF_NAMES}`
  }
  const service = await (await startProcess(t, env)).ready()
  const port = Number(new URL(service.api).port)
  const opsPort = Number(new URL(service.ops).port)
  const token = `Authorization: Bearer ${await sign({ sub: 'alice' })}`
  const get = 'GET /api/alice/tasks HTTP/1.1'
  const post = 'POST /api/alice/tasks HTTP/1.1'
  const body = '{"title":"Buy milk"}'
  const json = ['Content-Type: application/json', `Content-Length: ${body.length}`]
  const h2c = [
    'Upgrade: h2c',
    'HTTP2-Settings: AAMAAABkAAQAAP__',
    'Connection: Upgrade, HTTP2-Settings, close'
  ]
  const websocket = [
    'Upgrade: websocket',
    'Connection: Upgrade, close',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='
  ]
  const closing = 'Connection: close'

  for (const address of ADDRESSES) {
    const ask = async (bytes: string, to = port) => parseRaw(await sendRaw(address, to, bytes))

    t.test(`a request without a token on ${address}`, async (t) => {
      const answer = await ask(lines(get, 'Host: x', closing))
      t.match(answer, { status: 401, headers: { 'cache-control': 'no-store' } })
    })

    t.test(`requests to change the protocol are answered in HTTP/1.1 on ${address}`, async (t) => {
      for (const upgrade of [h2c, websocket]) {
        const name = String(upgrade[0])
        t.equal((await ask(lines(get, 'Host: x', ...upgrade))).status, 401, name)
        t.equal((await ask(lines(get, 'Host: x', token, ...upgrade))).status, 200, name)
        const created = await ask(lines(post, 'Host: x', token, ...json, ...upgrade) + body)
        t.equal(created.status, 201, `${name} with a body`)
        t.equal((await ask(lines('GET /live HTTP/1.1', 'Host: x', ...upgrade), opsPort)).status, 200)
      }
    })

    t.test(`an unknown Expect is ignored on ${address}`, async (t) => {
      const expect = 'Expect: the-unexpected'
      t.equal((await ask(lines(get, 'Host: x', token, closing, expect))).status, 200)
      t.equal((await ask(lines('GET /live HTTP/1.1', 'Host: x', closing, expect), opsPort)).status, 200)
    })

    t.test(`a broken request is answered as a problem on ${address}`, async (t) => {
      for (const to of [port, opsPort]) {
        const answer = await ask('garbage\r\n\r\n', to)
        t.match(answer, {
          status: 400,
          headers: { 'content-type': 'application/problem+json', 'x-content-type-options': 'nosniff' },
          json: { status: 400, code: 'bad_request' }
        })
      }
    })
  }

  t.test('after SIGTERM half-sent requests finish on both, and idle connections are closed', async (t) => {
    const opened = []
    for (const address of ADDRESSES) {
      for (const to of [port, opsPort]) {
        const idle = connect(to, address)
        idle.on('error', () => {})
        t.teardown(() => idle.destroy())
        await once(idle, 'connect')
      }
      const socket = connect(port, address)
      socket.on('error', () => {})
      t.teardown(() => socket.destroy())
      let received = ''
      socket.on('data', (chunk) => {
        received += chunk
      })
      const ended = once(socket, 'close')
      socket.write(lines(post, 'Host: x', token, ...json) + body.slice(0, 5))
      opened.push({ address, socket, ended, received: () => received })
    }
    // Connections are accepted in order, so the service has accepted the ones above.
    for (const address of ADDRESSES) {
      t.equal(parseRaw(await sendRaw(address, port, lines(get, 'Host: x', closing))).status, 401)
    }
    const exit = service.stop()
    for (const address of ADDRESSES) await refused(address, port)
    for (const { socket } of opened) socket.write(body.slice(5))
    for (const { address, ended, received } of opened) {
      await ended
      t.match(parseRaw(received()), { status: 201, headers: { connection: 'close' } }, address)
    }
    t.match(await exit, { code: 0, signal: null })
    t.equal(service.err(), '')
  })
})

/** Resolves when connections there are refused. */
async function refused(address: string, port: number): Promise<void> {
  for (;;) {
    const socket = connect(port, address)
    try {
      await once(socket, 'connect')
    } catch {
      return
    } finally {
      socket.destroy()
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
