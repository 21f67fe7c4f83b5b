import dns from 'node:dns'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { promisify } from 'node:util'
import { limitLookups } from '../../src/lookups.js'
import { until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

type Callback = (error: Error | null, addresses: { address: string; family: number }[]) => void

/** Replaces the system's look-up by one whose calls wait for `answer`, and calls `limitLookups`. */
function limited(t: Test, RES_OPTIONS?: string) {
  const { lookup } = dns
  const before = process.env.RES_OPTIONS
  const calls: { name: string; answer: Callback }[] = []
  const fake = (name: string, _options: unknown, answer: Callback) => void calls.push({ name, answer })
  Object.assign(dns, { lookup: fake })
  if (RES_OPTIONS === undefined) delete process.env.RES_OPTIONS
  else process.env.RES_OPTIONS = RES_OPTIONS
  limitLookups()
  t.teardown(() => {
    Object.assign(dns, { lookup })
    if (before === undefined) delete process.env.RES_OPTIONS
    else process.env.RES_OPTIONS = before
  })
  return calls
}

t.test('connections to a name that is being looked up wait for the same answer', async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const calls = limited(t)
  const open = (host: string) => {
    const socket = connect({ host, port })
    t.teardown(() => socket.destroy())
    return socket
  }
  const sockets = Array.from({ length: 10 }, () => open('db.test'))
  open('other.test').on('error', () => {})
  await until(async () => calls.some(({ name }) => name === 'other.test'))
  t.strictSame(calls.map(({ name }) => name).sort(), ['db.test', 'other.test'])

  const connected = sockets.map((socket) => once(socket, 'connect'))
  server.on('connection', (socket) => socket.destroy())
  calls.find(({ name }) => name === 'db.test')?.answer(null, [{ address: '127.0.0.1', family: 4 }])
  await Promise.all(connected)

  const next = open('db.test')
  await until(async () => calls.length === 3)
  const failed = once(next, 'error')
  calls[2]?.answer(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' }), [])
  t.match(await failed, [{ code: 'ENOTFOUND' }])
})

t.test('callbacks without options, wrong options and promises are those of Node', async (t) => {
  const before = process.env.RES_OPTIONS
  const { lookup } = dns
  t.teardown(() => {
    Object.assign(dns, { lookup })
    if (before === undefined) delete process.env.RES_OPTIONS
  })
  limitLookups()
  const found = await new Promise((resolve) => dns.lookup('127.0.0.1', (_, address) => resolve(address)))
  t.equal(found, '127.0.0.1')
  t.strictSame(await promisify(dns.lookup)('127.0.0.1'), await dns.promises.lookup('127.0.0.1'))
  for (let i = 0; i < 2; i++) {
    const wrong = () => dns.lookup('localhost', { family: 5 as 4 }, () => {})
    t.throws(wrong, { code: 'ERR_INVALID_ARG_VALUE' })
  }
})

t.test('the C library waits 3 seconds for a name server, if nothing else is set', async (t) => {
  await t.test('without a setting', async (t) => {
    limited(t)
    t.equal(process.env.RES_OPTIONS, 'timeout:1 attempts:3')
  })
  await t.test('with a setting', async (t) => {
    limited(t, 'timeout:9')
    t.equal(process.env.RES_OPTIONS, 'timeout:9')
  })
})
