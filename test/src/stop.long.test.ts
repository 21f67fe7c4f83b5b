import { Agent, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout } from 'node:timers/promises'
import { SECRET, sign } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { aliceAt, type Service, startProcess, statusOf, until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'
import { startProxy } from '../support/tcp-proxy.js'

/** Opens a raw connection and sends this text. It ends with the test. */
async function socketTo(t: Test, url: string, text: string): Promise<Socket> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  await new Promise<void>((resolve) => socket.once('connect', resolve))
  if (text) await new Promise((resolve) => socket.write(text, resolve))
  return socket
}

t.test('SIGTERM', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  const env = { JWT_SECRET: SECRET, DATABASE_URL }
  const sql = sqlClient(t, DATABASE_URL)

  /** Starts an update that waits for a row until `release` is called. */
  async function updateInFlight(service: Service) {
    const alice = await aliceAt(service)
    const { id } = (await (await alice('POST', '', { title: 'Buy milk' })).json()) as { id: string }
    const holder = await sql.reserve()
    await holder`begin`
    await holder`select from tasks where id = ${id} for update`
    const answer = alice('PATCH', `/${id}`, { title: 'Buy bread' })
    await until(async () => (await sql`select from pg_locks where not granted`).length > 0)
    return {
      answer,
      async release() {
        await holder`rollback`
        holder.release()
      },
      title: async () => (await sql`select title from tasks where id = ${id}`)[0]?.title
    }
  }

  t.test('a request in flight finishes while /ready is 503 and new connections are refused', async (t) => {
    const service = await (await startProcess(t, env)).ready()
    const { answer, release, title } = await updateInFlight(service)
    const exit = service.stop()
    await until(async () => (await statusOf(`${service.ops}/ready`)) === 503)
    t.equal(await statusOf(`${service.ops}/live`), 200)
    await until(async () => (await statusOf(service.api)) === undefined)
    // A stop that does not wait would end the connection within this time.
    await setTimeout(500)
    await release()
    const response = await answer
    t.equal(response.status, 200)
    t.match(await response.json(), { title: 'Buy bread' })
    t.equal(await title(), 'Buy bread')
    t.match(await exit, { code: 0, signal: null })
    t.equal(service.err(), '')
  })

  t.test('clients that keep their connections lose no answer', async (t) => {
    const service = await (await startProcess(t, env)).ready()
    const agent = new Agent({ keepAlive: true })
    t.teardown(() => agent.destroy())
    const options = {
      agent,
      method: 'POST',
      headers: { authorization: `Bearer ${await sign({ sub: 'alice' })}`, 'content-type': 'application/json' }
    }
    /** Returns a status, or an error. A new connection may be refused. */
    const create = () =>
      new Promise<number | string | undefined>((resolve) => {
        const sent = request(`${service.api}/api/alice/tasks`, options, (response) => {
          response.resume().on('close', () => resolve(response.complete ? response.statusCode : 'aborted'))
        }).on('error', ({ message }) => resolve(sent.reusedSocket ? message : 'refused'))
        sent.end('{"title":"Buy milk"}')
      })
    let answers = 0
    const client = async () => {
      for (;;) {
        const outcome = await create()
        if (outcome !== 201) return outcome
        answers++
      }
    }
    const clients = Array.from({ length: 20 }, client)
    await until(() => answers > 200)
    t.match(await service.stop(), { code: 0, signal: null })
    t.strictSame(new Set(await Promise.all(clients)), new Set(['refused']))
    const [row] = await sql`select count(*)::int from tasks where title = 'Buy milk' and user_id = 'alice'`
    t.ok(row?.count >= answers)
  })

  t.test('a second signal ends the process at once', async (t) => {
    const service = await (await startProcess(t, env)).ready()
    const { answer, release } = await updateInFlight(service)
    // At its deadline the update would be answered 503.
    const unanswered = t.rejects(answer)
    void service.stop()
    await until(async () => (await statusOf(`${service.ops}/ready`)) === 503)
    t.equal((await service.stop()).code, 1)
    await unanswered
    await release()
  })

  const HALF = 'GET /api/alice/tasks HTTP/1.1\r\nHost: x\r\n'
  const cases: [what: string, text: string][] = [
    ['connections that never sent anything', ''],
    ['half a request head', HALF],
    ['idle connections kept alive', `${HALF}\r\n`]
  ]
  for (const [what, text] of cases) {
    t.test(`does not wait for ${what}`, async (t) => {
      const service = await (await startProcess(t, { ...env, GRACE_SECONDS: '600' })).ready()
      const api = await socketTo(t, service.api, text)
      const ops = await socketTo(t, service.ops, text.replace('/api/alice/tasks', '/live'))
      if (text.endsWith('\r\n\r\n')) {
        await Promise.all([api, ops].map((socket) => new Promise((resolve) => socket.once('data', resolve))))
      }
      // Connections are accepted in order, so the service has accepted the ones above.
      t.equal(await statusOf(service.api), 401)
      t.equal(await statusOf(`${service.ops}/live`), 200)
      t.equal((await service.stop()).code, 0)
    })
  }

  t.test('waits for half a request body at most for the grace period', async (t) => {
    const service = await (await startProcess(t, { ...env, GRACE_SECONDS: '1' })).ready()
    const authorization = `Bearer ${await sign({ sub: 'alice' })}`
    const head = `POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\n`
    const socket = await socketTo(
      t,
      service.api,
      `${head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"ti`
    )
    t.equal(await statusOf(service.api), 401)
    const { code, milliseconds } = await service.stop()
    t.equal(code, 0)
    t.ok(milliseconds >= 1_000, `${milliseconds} ms`)
    // After 10 seconds it would be answered 408.
    t.equal(await text(socket), '')
  })

  t.test('answers a refused upload that is still being sent', async (t) => {
    const service = await (await startProcess(t, env)).ready()
    const size = 20_000_000
    const socket = await socketTo(
      t,
      service.api,
      `POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: ${size}\r\n\r\n`
    )
    const send = (bytes: number) => new Promise((resolve) => socket.write(Buffer.alloc(bytes), resolve))
    await send(1_000_000)
    const exit = service.stop()
    await until(async () => (await statusOf(`${service.ops}/ready`)) !== 200)
    // A stop that does not wait would end the connection within this time.
    await setTimeout(500)
    t.notOk(await send(size - 1_000_000), 'everything was sent')
    t.match(await text(socket), /^HTTP\/1\.1 401 /)
    t.match(await exit, { code: 0, signal: null })
  })

  t.test('ends normally even if the database is dead', async (t) => {
    const proxy = await startProxy(t, DATABASE_URL)
    const service = await (await startProcess(t, { ...env, DATABASE_URL: proxy.url })).ready()
    proxy.freeze()
    proxy.mode = 'silent'
    t.equal((await (await aliceAt(service))('GET')).status, 503)
    t.equal((await service.stop()).code, 0)
  })
})

for (const signal of ['SIGSEGV', 'SIGABRT'] as const) {
  t.test(`a process that crashes by ${signal} is ended by that signal`, async (t) => {
    const service = await (await startProcess(t, {})).ready()
    t.equal((await service.stop(signal)).signal, signal)
  })
}
