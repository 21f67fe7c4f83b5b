import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { type Collector, type Span, startCollector } from '../support/collector.js'
import { migratedDatabase, sqlClient } from '../support/databases.js'
import { serve, startKeyServer } from '../support/key-server.js'
import { freePort } from '../support/postgres-server.js'
import { emptyFolder, type Service, startProcess, until } from '../support/process.js'
import { SECRET, sign } from '../support/sign.js'
import t, { type Test } from '../support/tap.js'

const SERVER = 2
const CLIENT = 3
const ERROR = 2
/** A unique word. */
const USER = 'zanzibar-user'
const TITLE = 'quokka title'

async function start(t: Test, env: Record<string, string> = {}) {
  const collector = await startCollector(t)
  const database = await migratedDatabase(t)
  const service = await startProcess(t, {
    DATABASE_URL: database,
    JWT_SECRET: SECRET,
    LOG_LEVEL: 'info',
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    ...env
  })
  await service.ready()
  return { collector, service, database }
}

async function clientOf(service: Service, token?: string) {
  const authorization = `Bearer ${token ?? (await sign({ sub: USER }))}`
  return async (method: string, path = '', body?: object, headers: Record<string, string> = {}) => {
    const answer = await fetch(`${service.api}/api/${USER}/tasks${path}`, {
      method,
      headers: { authorization, ...(body && { 'content-type': 'application/json' }), ...headers },
      ...(body && { body: JSON.stringify(body) })
    })
    const text = await answer.text()
    return { status: answer.status, json: text && JSON.parse(text) }
  }
}

const traceparent = (flags = '01') => {
  const [trace, parent] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')]
  return { trace, parent, header: { traceparent: `00-${trace}-${parent}-${flags}` } }
}

const inTrace = ({ spans }: Collector, trace: string) => spans.filter((span) => span.trace === trace)

const linesOf = (service: Service) =>
  service
    .out()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))

/** Makes one request. Returns the spans of the request and of its statements. */
function requestOf(t: Test, collector: Collector, trace: string): { request: Span; statements: Span[] } {
  const spans = inTrace(collector, trace)
  const [request, ...others] = spans.filter(({ kind }) => kind === SERVER)
  t.strictSame(others, [], 'one span for the request')
  return { request: request as Span, statements: spans.filter(({ kind }) => kind === CLIENT) }
}

t.test('spans of requests and statements follow the semantic conventions', async (t) => {
  const { collector, service, database } = await start(t, {
    LOG_REQUESTS: 'true',
    OTEL_SERVICE_NAME: 'my-tasks'
  })
  const client = await clientOf(service)
  const traces = {
    create: traceparent(),
    get: traceparent(),
    list: traceparent(),
    missing: traceparent(),
    nowhere: traceparent(),
    anonymous: traceparent(),
    bug: traceparent()
  }
  const { json } = await client('POST', '', { title: TITLE }, traces.create.header)
  await client('GET', `/${json.id}?secret=${TITLE}`, undefined, traces.get.header)
  await client('GET', '', undefined, traces.list.header)
  t.equal((await client('GET', `/${randomUUID()}`, undefined, traces.missing.header)).status, 404)
  await client('GET', '/x/y/z', undefined, traces.nowhere.header)
  const anonymous = await clientOf(service, 'x.y.z')
  t.equal((await anonymous('GET', '', undefined, traces.anonymous.header)).status, 401)
  const sql = sqlClient(t, database)
  await sql`alter table tasks add constraint small check (length(title) < 5) not valid`
  t.equal((await client('POST', '', { title: TITLE }, traces.bug.header)).status, 500)
  const answered = service.stop()
  t.equal((await answered).code, 0)

  // The stop sends the last spans.
  const create = requestOf(t, collector, traces.create.trace)
  t.equal(create.request.name, 'POST /api/:userId/tasks')
  t.equal(create.request.parent, traces.create.parent)
  t.equal(create.request.status, 0)
  t.match(create.request.attributes, {
    'http.request.method': 'POST',
    'http.route': '/api/:userId/tasks',
    'http.response.status_code': 201,
    'url.path': '/api/:userId/tasks',
    'url.scheme': 'http'
  })
  const [insert] = create.statements
  t.equal(create.statements.length, 1)
  t.match(insert, { parent: create.request.id, name: 'INSERT tasks', status: 0 })
  t.match(insert?.attributes, {
    'db.system.name': 'postgresql',
    'db.query.summary': 'INSERT tasks',
    'db.query.text': /^insert into "tasks" .*\$1/
  })
  // By the conventions, these must not be read from the text.
  t.notOk(insert?.attributes['db.operation.name'])
  t.notOk(insert?.attributes['db.collection.name'])

  for (const [name, status, statement] of [
    ['get', 200, 'SELECT tasks'],
    ['list', 200, 'SELECT tasks'],
    ['missing', 404, 'SELECT tasks']
  ] as const) {
    const { request, statements } = requestOf(t, collector, traces[name].trace)
    t.equal(request.attributes['http.response.status_code'], status, name)
    t.equal(request.status, 0, 'an answer that tells of a mistake of the client is no error of the server')
    t.match(statements, [{ name: statement, parent: request.id, status: 0 }])
  }
  for (const [name, status] of [
    ['nowhere', 404],
    ['anonymous', 401]
  ] as const) {
    const { request, statements } = requestOf(t, collector, traces[name].trace)
    t.match(request, { status: 0, attributes: { 'http.response.status_code': status } }, name)
    t.strictSame(statements, [])
  }
  t.equal(requestOf(t, collector, traces.nowhere.trace).request.name, 'GET')
  const bug = requestOf(t, collector, traces.bug.trace)
  t.match(bug.request, { status: ERROR, attributes: { 'error.type': '500' } })
  t.match(bug.statements, [
    { status: ERROR, attributes: { 'error.type': '23514', 'db.response.status_code': '23514' } }
  ])

  t.match(collector.resource, { 'service.name': 'my-tasks', 'service.version': /^\d/ })
  const told = JSON.stringify(collector.spans)
  for (const secret of [USER, TITLE, 'quokka', json.id, 'secret']) t.notOk(told.includes(secret), secret)
  t.ok(
    collector.spans.every(({ events, statusMessage }) => events.length === 0 && statusMessage === ''),
    'no message and no stack'
  )

  const lines = linesOf(service)
  for (const { trace } of Object.values(traces)) {
    const [line] = lines.filter(({ trace_id, msg }) => msg === 'request answered' && trace_id === trace)
    t.equal(line?.span_id, requestOf(t, collector, trace).request.id, 'a log line of the trace')
  }
  t.match(
    lines.find(({ msg }) => msg === 'request failed'),
    { trace_id: traces.bug.trace }
  )
})

t.test('the span of a streamed list includes the statement that streams it', async (t) => {
  const { collector, service, database } = await start(t)
  const sql = sqlClient(t, database)
  await sql`
    insert into tasks (user_id, id, title, completed)
    select ${USER}, gen_random_uuid(), repeat('a', 200), false from generate_series(1, 2000)`
  const { trace, header } = traceparent()
  const { json } = await (await clientOf(service))('GET', '', undefined, header)
  t.equal(json.length, 2_000)
  await service.stop()
  const { request, statements } = requestOf(t, collector, trace)
  t.equal(statements.length, 2)
  // The SDK rounds the start of each span to a millisecond.
  for (const { endedAt } of statements) t.ok(request.endedAt > endedAt - 1_000_000)
})

t.test('statements that share a transaction have their own request as parent', async (t) => {
  const { collector, service } = await start(t)
  const client = await clientOf(service)
  const traces: ReturnType<typeof traceparent>[] = []
  const someShare = async () => {
    const more = Array.from({ length: 200 }, () => traceparent())
    traces.push(...more)
    await Promise.all(more.map(({ header }) => client('POST', '', { title: 'a' }, header)))
    const metrics = await (await fetch(`${service.ops}/metrics`)).text()
    return Number(/^database_shared_transaction_writes_sum (\d+)/m.exec(metrics)?.[1]) > 1
  }
  await until(someShare)
  await service.stop()
  for (const { trace, parent } of traces) {
    const { request, statements } = requestOf(t, collector, trace)
    t.equal(request.parent, parent)
    t.match(statements, [{ name: 'INSERT tasks', parent: request.id }])
    t.equal(statements.length, 1)
  }
})

t.test('the statement of a request whose body arrives later has the request as parent', async (t) => {
  const { collector, service } = await start(t)
  const sent = traceparent()
  const post = request(`${service.api}/api/${USER}/tasks`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${await sign({ sub: USER })}`,
      'content-type': 'application/json',
      // The service answers it when it has read the headers.
      expect: '100-continue',
      ...sent.header
    }
  })
  post.flushHeaders()
  await once(post, 'continue')
  post.end(JSON.stringify({ title: TITLE }))
  const [answer] = await once(post, 'response')
  t.equal(answer.statusCode, 201)
  answer.resume()
  await service.stop()
  const { request: span, statements } = requestOf(t, collector, sent.trace)
  t.match(statements, [{ name: 'INSERT tasks', parent: span.id }])
})

t.test('a long list has one more statement, and an outage marks both spans', async (t) => {
  const { collector, service, database } = await start(t)
  const client = await clientOf(service)
  await sqlClient(t, database)`
    insert into tasks (user_id, id, title, completed) select ${USER}, gen_random_uuid(), 'a', false from generate_series(1, 500)`
  const list = traceparent()
  t.equal((await client('GET', '', undefined, list.header)).json.length, 500)
  const holder = await sqlClient(t, database).reserve()
  await holder`begin`
  await holder`lock table tasks`
  const outage = traceparent()
  t.equal((await client('GET', '', undefined, outage.header)).status, 503)
  await holder`rollback`
  holder.release()
  await service.stop()
  t.match(requestOf(t, collector, list.trace).statements, [
    { name: 'SELECT tasks' },
    { name: 'SELECT tasks' }
  ])
  const { request, statements } = requestOf(t, collector, outage.trace)
  t.match(request, { status: ERROR, attributes: { 'error.type': '503' } })
  t.match(statements, [{ status: ERROR, attributes: { 'error.type': 'timeout' } }])
})

t.test('the sampling of a parent is followed, at any ratio', async (t) => {
  const { collector, service } = await start(t, {
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0'
  })
  const client = await clientOf(service)
  const [followed, left] = [traceparent('01'), traceparent('00')]
  await client('GET', '', undefined, followed.header)
  await client('GET', '', undefined, left.header)
  await client('GET')
  await client('GET', '', undefined, { traceparent: 'not-a-trace-01' })
  await service.stop()
  t.equal(inTrace(collector, followed.trace).length, 2)
  t.equal(collector.spans.length, 2)
})

t.test('with traceidratio the trace id decides on a trace that is continued', async (t) => {
  const { collector, service } = await start(t, {
    OTEL_TRACES_SAMPLER: 'traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.5'
  })
  const client = await clientOf(service)
  const parent = randomBytes(8).toString('hex')
  const ids = (digit: string) => Array.from({ length: 8 }, (_, at) => `${digit}${at}`.padEnd(32, '0'))
  const [sampled, left] = [ids('1'), ids('f')]
  for (const id of sampled) await client('GET', '', undefined, { traceparent: `00-${id}-${parent}-00` })
  for (const id of left) await client('GET', '', undefined, { traceparent: `00-${id}-${parent}-01` })
  await service.stop()
  for (const id of sampled) t.equal(inTrace(collector, id).length, 2, 'the request and its statement')
  t.equal(collector.spans.length, 16)
})

// Only a recorded request enters Node's AsyncLocalStorage. Its context must not reach the next request.
t.test('requests on one connection do not inherit the trace of the request before', async (t) => {
  const { collector, service } = await start(t, {
    LOG_REQUESTS: 'true',
    OTEL_TRACES_SAMPLER: 'parentbased_always_off'
  })
  // fetch sends one request after the other on one connection.
  const client = await clientOf(service)
  const sent = Array.from({ length: 20 }, (_, at) => traceparent(at % 2 === 0 ? '01' : '00'))
  for (const { header } of sent) {
    t.equal((await client('POST', '', { title: TITLE }, header)).status, 201)
    t.equal((await client('GET', '', undefined, header)).status, 200)
  }
  await service.stop()
  for (const [at, { trace }] of sent.entries()) {
    const expected = at % 2 === 0 ? ['GET', 'INSERT', 'POST', 'SELECT'] : []
    const names = inTrace(collector, trace).map(({ name }) => name.split(' ')[0])
    t.strictSame(names.sort(), expected, `request ${at}`)
  }
  t.equal(collector.spans.length, 40)
  const lines = linesOf(service).filter(({ msg }) => msg === 'request answered')
  t.equal(lines.length, 40)
  t.strictSame(
    lines.map(({ trace_id }) => trace_id),
    sent.flatMap(({ trace }, at) => (at % 2 === 0 ? [trace, trace] : [undefined, undefined]))
  )
})

// While much waits to be sent, Node stops reading requests. It goes on after an answer, in the context of that request.
t.test('pipelined requests do not inherit the trace of the request before', async (t) => {
  const { collector, service, database } = await start(t, { OTEL_TRACES_SAMPLER: 'parentbased_always_off' })
  await sqlClient(t, database)`
    insert into tasks (user_id, id, title, completed)
    select ${USER}, gen_random_uuid(), repeat('a', 200), false from generate_series(1, 10)`
  const socket = connect(Number(new URL(service.api).port), '127.0.0.1')
  const sent = Array.from({ length: 400 }, (_, at) => traceparent(at % 2 === 0 ? '01' : '00'))
  const token = await sign({ sub: USER })
  for (const [at, { header }] of sent.entries()) {
    const last = at === sent.length - 1 ? 'Connection: close\r\n' : ''
    socket.write(
      `GET /api/${USER}/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n` +
        `traceparent: ${header.traceparent}\r\n${last}\r\n`
    )
  }
  const answers = await text(socket)
  t.equal(answers.split('HTTP/1.1 200 OK').length - 1, sent.length)
  await service.stop()
  for (const [at, { trace }] of sent.entries()) {
    const expected = at % 2 === 0 ? ['GET', 'SELECT'] : []
    const names = inTrace(collector, trace).map(({ name }) => name.split(' ')[0])
    t.strictSame(names.sort(), expected, `request ${at}`)
  }
  t.equal(collector.spans.length, sent.length)
})

t.test('the span of a request ends if the client leaves', async (t) => {
  const { collector, service } = await start(t)
  const sent = traceparent()
  const socket = connect(Number(new URL(service.api).port), '127.0.0.1')
  socket.write(
    `POST /api/${USER}/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${await sign({ sub: USER })}\r\n` +
      `Content-Type: application/json\r\nContent-Length: 100\r\ntraceparent: ${sent.header.traceparent}\r\n\r\n{`
  )
  // By then the service has read the head of the first request.
  await (await clientOf(service))('GET')
  socket.destroy()
  await service.stop()
  const [span, ...others] = inTrace(collector, sent.trace)
  t.match(span, { name: 'POST /api/:userId/tasks', kind: SERVER })
  t.notOk(span?.attributes['http.response.status_code'], 'no answer was sent')
  t.strictSame(others, [])
})

t.test('the spans of pipelined requests end if the client leaves', async (t) => {
  const { collector, service, database } = await start(t)
  const sql = sqlClient(t, database)
  await sql`
    insert into tasks (user_id, id, title, completed)
    select ${USER}, gen_random_uuid(), repeat('a', 200), false from generate_series(1, 5000)`
  const socket = connect(Number(new URL(service.api).port), '127.0.0.1')
  const sent = [traceparent(), traceparent(), traceparent()]
  const token = await sign({ sub: USER })
  const holder = await sql.reserve()
  await holder`begin`
  await holder`lock table tasks in access exclusive mode`
  // One write, so the service reads all of them at once.
  socket.write(
    sent
      .map(
        ({ header }) =>
          `GET /api/${USER}/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n` +
          `traceparent: ${header.traceparent}\r\n\r\n`
      )
      .join('')
  )
  await until(async () => (await sql`select from pg_locks where not granted`).length > 0)
  socket.destroy()
  // The service has seen the end of that connection, which came first.
  t.equal((await fetch(service.api)).status, 401)
  await holder`rollback`
  holder.release()
  await service.stop()
  for (const { trace } of sent) {
    const { request: span, statements } = requestOf(t, collector, trace)
    t.notOk(span.attributes['http.response.status_code'], 'no answer was sent')
    t.ok(statements.every(({ parent }) => parent === span.id))
  }
})

t.test('the span of a list that breaks off ends, and its statement is marked', async (t) => {
  const { collector, service, database } = await start(t)
  const sql = sqlClient(t, database)
  await sql`
    insert into tasks (user_id, id, title, completed)
    select ${USER}, gen_random_uuid(), repeat('a', 200), false from generate_series(1, 50000)`
  const { trace, header } = traceparent()
  const authorization = `Bearer ${await sign({ sub: USER })}`
  const list = request(`${service.api}/api/${USER}/tasks`, { headers: { authorization, ...header } }).end()
  // The list is too long for the buffers of the sockets, and nothing is read yet.
  const [answer] = await once(list, 'response')
  await sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()`
  await t.rejects(text(answer))
  await service.stop()
  const { request: span, statements } = requestOf(t, collector, trace)
  t.equal(span.attributes['http.response.status_code'], 200)
  t.match(
    statements.sort((a, b) => a.status - b.status),
    [{ status: 0 }, { status: ERROR, attributes: { 'error.type': 'connection' } }]
  )
})

t.test('requests are sampled by the ratio', async (t) => {
  const { collector, service } = await start(t, {
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.5'
  })
  const client = await clientOf(service)
  // Lots are drawn for 20 ms, so these requests are drawn apart.
  for (let at = 0; at < 200; at++) {
    await client('GET')
    await sleep(22)
  }
  await service.stop()
  const requests = collector.spans.filter(({ kind }) => kind === SERVER)
  t.ok(requests.length > 65 && requests.length < 135, `${requests.length} of 200`)
  t.equal(collector.spans.length, 2 * requests.length, 'each with its statement')
})

t.test('at most 32 requests that arrive together are sampled together', async (t) => {
  const { service } = await start(t, {
    LOG_REQUESTS: 'true',
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.5'
  })
  const socket = connect(Number(new URL(service.api).port), '127.0.0.1')
  socket.resume()
  const head = `HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${await sign({ sub: USER })}\r\n\r\n`
  const [rounds, together, lot] = [30, 64, 32]
  const answered = () => linesOf(service).filter(({ msg }) => msg === 'request answered')
  for (let round = 1; round <= rounds; round++) {
    // One write, and nothing else on the way, so one turn of the event loop reads all of them.
    socket.write(`GET /api/${USER}/tasks ${head}`.repeat(together))
    await until(() => answered().length === round * together)
  }
  socket.destroy()
  const isSampled = answered().map(({ trace_id }) => trace_id !== undefined)
  const lots = Array.from({ length: isSampled.length / lot }, (_, at) =>
    isSampled.slice(at * lot, (at + 1) * lot)
  )
  const split = lots.filter((one) => new Set(one).size !== 1)
  t.strictSame(split, [], 'all or none of 32')
  const rest = (at: number) => lots.filter((_, index) => index % 2 === at).map(([first]) => first)
  t.strictNotSame(rest(0), rest(1), 'the others of a round are drawn apart')
})

t.test('the key server gets the trace context, and no span has its query', async (t) => {
  const { privateKey, publicKey } = await generateKeyPair('EdDSA')
  const keys = await startKeyServer(t, [{ ...(await exportJWK(publicKey)), alg: 'EdDSA' }])
  const seen: (string | undefined)[] = []
  keys.answer = (response, server) => {
    seen.push(response.req.headers.traceparent as string | undefined)
    // Not the fetch of the start, which has no request.
    if (seen.length === 1) response.writeHead(500).end()
    else serve(response, server)
  }
  const { collector, service } = await start(t, { JWT_SECRET: '', JWKS_URL: `${keys.url}?apikey=wombat` })
  await until(() => seen.length > 0)
  const token = await new SignJWT({ sub: USER })
    .setProtectedHeader({ alg: 'EdDSA' })
    .setExpirationTime('1h')
    .sign(privateKey)
  const client = await clientOf(service, token)
  const sent = traceparent()
  const get = async () =>
    (await client('GET', '', undefined, { ...sent.header, baggage: 'user=quokka' })).status === 200
  await until(get)
  await service.stop()
  const passed = seen.findLast((header) => header !== undefined)
  const [span] = inTrace(collector, sent.trace).filter(({ name }) => name === 'GET')
  t.equal(passed, `00-${sent.trace}-${span?.id}-01`)
  t.match(span, { kind: CLIENT, attributes: { 'url.full': keys.url, 'http.response.status_code': 200 } })
  t.notMatch(JSON.stringify(collector.spans), /wombat/)
})

for (const [what, answer] of [
  ['refuses connections', undefined],
  ['never answers', 'never']
] as const) {
  t.test(`a collector that ${what} delays neither answers nor the stop`, async (t) => {
    const dead = `http://127.0.0.1:${await freePort()}`
    const { collector, service } = await start(t, {
      ...(answer === undefined && { OTEL_EXPORTER_OTLP_ENDPOINT: dead }),
      OTEL_BSP_SCHEDULE_DELAY: '100',
      // A stop that waits for the exporter is ended with code 1 before that.
      OTEL_EXPORTER_OTLP_TIMEOUT: '120000',
      OTEL_BSP_EXPORT_TIMEOUT: '120000'
    })
    if (answer !== undefined) collector.answer = answer
    const client = await clientOf(service)
    for (let at = 0; at < 100; at++) t.equal((await client('GET')).status, 200)
    if (answer !== undefined) await until(() => collector.requests > 0)
    t.match(await service.stop(), { code: 0, signal: null })
  })
}

// prom-client loads the API package, which does nothing by itself.
t.test("without tracing only OpenTelemetry's API package is loaded", async (t) => {
  const folder = emptyFolder(t)
  const hook = join(folder, 'hook.cjs')
  const list = join(folder, 'loaded.json')
  writeFileSync(
    hook,
    `process.on('exit', () => require('node:fs').writeFileSync(${JSON.stringify(list)},
      JSON.stringify(Object.keys(require('node:module')._cache))))`
  )
  const loaded = async (env: Record<string, string>) => {
    const { service } = await start(t, { NODE_OPTIONS: `--require ${hook}`, ...env })
    await service.stop()
    const files: string[] = JSON.parse(readFileSync(list, 'utf8'))
    t.ok(files.some((file) => file.includes('/node_modules/fastify/')))
    return files.filter((file) => /@opentelemetry\/(?!api\/)|fastify\/otel|in-the-middle/.test(file)).length
  }
  t.ok((await loaded({})) > 0, 'on')
  t.equal(await loaded({ OTEL_EXPORTER_OTLP_ENDPOINT: '' }), 0, 'no endpoint')
})
