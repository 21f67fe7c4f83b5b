import { connect } from 'node:net'
import { SECRET, sign } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { startProcess } from '../support/process.js'
import t, { type Test } from '../support/tap.js'
import { startProxy } from '../support/tcp-proxy.js'

/** Values of a user, a client or an operator. Each has a unique word. */
const PRIVATE = {
  user: 'zanzibar-user',
  title: 'quokka "title"\n    at the zoo $& \'',
  description: 'wombat description',
  body: 'numbat in a broken body',
  path: 'dingo-path',
  query: 'bilby-query',
  header: 'echidna-header',
  key: 'platypus-idempotency-key',
  password: 's3cretpassword',
  secret: SECRET
}

/** Sends input that is no HTTP, and waits until the connection is closed. */
async function sendRaw(url: string, text: string): Promise<void> {
  const { hostname, port } = new URL(url)
  await new Promise((resolve) => {
    const socket = connect(Number(port), hostname, () => socket.write(text))
    socket.on('error', () => {}).on('close', resolve)
    socket.resume()
  })
}

async function isSilentAbout(t: Test, NODE_ENV: string) {
  const database = await emptyDatabase(t)
  const sql = sqlClient(t, database)
  const proxy = await startProxy(t, database.replace('postgres@', `postgres:${PRIVATE.password}@`))
  const service = await startProcess(t, {
    DATABASE_URL: proxy.url,
    JWT_SECRET: SECRET,
    LOG_LEVEL: 'trace',
    NODE_ENV
  })
  await service.ready()
  const token = await sign({ sub: PRIVATE.user })
  const tokens = [
    token,
    await sign({ sub: PRIVATE.user }, 'another secret, of a length that is enough'),
    await sign({ sub: PRIVATE.user, exp: 1 })
  ]
  const tasks = `/api/${PRIVATE.user}/tasks`
  const statuses: number[] = []
  const send = async (method: string, path: string, body?: unknown, headers?: Record<string, string>) => {
    const answer = await fetch(`${service.api}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        'x-other': PRIVATE.header,
        cookie: `session=${PRIVATE.header}`,
        ...headers
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) })
    })
    statuses.push(answer.status)
    return { status: answer.status, text: await answer.text() }
  }
  const { title, description } = PRIVATE
  const create = () => send('POST', tasks, { title, description }, { 'idempotency-key': PRIVATE.key })

  const { id } = JSON.parse((await create()).text) as { id: string }
  await create()
  await send('POST', tasks, { title: 'x' }, { 'idempotency-key': PRIVATE.key })
  await send('GET', `${tasks}?status=all&token=${PRIVATE.query}`)
  await send('GET', `${tasks}?status=${PRIVATE.query}`)
  await send('GET', `${tasks}/${id}`)
  await send('PATCH', `${tasks}/${id}`, { title }, { 'if-match': `"${PRIVATE.header}"` })
  await send('PATCH', `${tasks}/${id}`, { title, description })
  await send('PUT', `${tasks}/${id}`, { title, completed: description })
  await send('PATCH', `${tasks}/${id}/complete`, {})
  await send('POST', tasks, `{"title": "${PRIVATE.body}" `)
  await send('POST', tasks, PRIVATE.body, { 'content-type': PRIVATE.header })
  await send('POST', tasks, { title: PRIVATE.body.padEnd(70_000) })
  await send('GET', `/api/${PRIVATE.path}/tasks`)
  await send('GET', `/${PRIVATE.path}/${PRIVATE.path}`)
  await send('PUT', `${tasks}?${PRIVATE.query}`)
  await send('GET', `/%zz${PRIVATE.path}`)
  await send('GET', `${tasks}/${PRIVATE.path}`)
  for (const other of tokens.slice(1))
    await send('GET', tasks, undefined, { authorization: `Bearer ${other}` })
  await send('GET', tasks, undefined, { authorization: `Basic ${PRIVATE.header}` })
  await send('DELETE', `${tasks}/${id}`)
  await sendRaw(service.api, `GET /${PRIVATE.path} HTTP/9.9\r\nAuthorization: Bearer ${token}\r\n\r\n`)
  await sendRaw(service.api, `GET / HTTP/1.1\r\nHost: x\r\nX-Large: ${PRIVATE.header.repeat(2_000)}\r\n\r\n`)

  // Two bugs: PostgreSQL's message has the value in one, and its detail has the whole row in the other.
  await sql`alter table tasks add column number integer generated always as (title::integer) stored`
  t.equal((await create()).status, 500)
  await sql`alter table tasks drop column number, add constraint small check (length(title) < 5)`
  t.equal((await create()).status, 500)
  await proxy.refuse()
  t.equal((await create()).status, 503)
  await proxy.listen()
  t.strictSame(
    [...new Set(statuses)].sort(),
    [200, 201, 204, 400, 401, 403, 404, 405, 412, 413, 415, 422, 500, 503],
    'every kind of answer'
  )
  await service.stop()

  const lines = service.out().split('\n')
  const logged = lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line))
  t.ok(logged.filter(({ msg }) => msg === 'request answered').length >= statuses.length, 'all is logged')
  t.match(
    logged.filter(({ msg }) => msg === 'request failed').map(({ err }) => err),
    [
      { code: '22P02', message: 'invalid input syntax for type integer: …', stack: /integer: …\n +at / },
      { code: '23514', message: /violates check constraint "small"/, stack: /\n +at / }
    ],
    'bugs say what an operator needs'
  )
  t.ok(logged.some(({ msg }) => msg === 'requests refused'))
  t.ok(logged.some(({ req }) => req?.route === '/api/:userId/tasks/:taskId'))

  // In development the greeting has a token for alice, who is no user here.
  const [greeting, ...more] = lines.filter((line) => line.startsWith('curl '))
  t.equal(greeting !== undefined, NODE_ENV !== 'production')
  t.strictSame(more, [])
  const written = `${lines.filter((line) => line !== greeting).join('\n')}${service.err()}`
  for (const [what, text] of Object.entries(PRIVATE)) {
    t.notOk(written.includes(text) || written.includes(JSON.stringify(text).slice(1, -1)), what)
  }
  for (const part of tokens.flatMap((each) => each.split('.'))) t.notOk(written.includes(part), 'a token')
  // The reason of a refused token contains the header's form: "Authorization is not "Bearer <token>"".
  t.notMatch(written, /zoo|"authorization"|Bearer [\w-]+\.|cookie/i)
  t.notMatch(written, id, 'the id of a task')
}

t.test('at trace no line contains a value of a user, a client or an operator', async (t) => {
  for (const NODE_ENV of ['production', 'development']) {
    t.test(`in ${NODE_ENV}`, async (t) => {
      await isSilentAbout(t, NODE_ENV)
    })
  }
})
