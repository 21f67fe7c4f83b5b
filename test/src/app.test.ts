import { METHODS } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { STATUS_OF } from '../../plugins/errors/catalogue.js'
import {
  type Answer,
  addToNextApp,
  clientOf,
  expectProblem,
  onEachDatabase,
  request,
  rowsOf,
  sign,
  startApp
} from '../support/api.js'
import { parseRaw, sendRaw } from '../support/raw.js'
import { JSON_TYPE, UNKNOWN_ID } from '../support/refusals.js'
import t from '../support/tap.js'

const sendTo = (app: FastifyInstance, bytes: string | Buffer) =>
  sendRaw('127.0.0.1', (app.server.address() as AddressInfo).port, bytes)

/** The headers of every answer. */
const SECURITY_HEADERS = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff'
}

const lines = (...all: string[]) => `${all.join('\r\n')}\r\n\r\n`
const COLLECTION = '/api/alice/tasks'

t.test('routing', async (t) => {
  const app = await startApp(t, 'embedded')
  const alice = await clientOf(app, 'alice')
  const { json: task } = await alice('POST', '', { title: 'a' })

  t.test('a trailing slash is ignored', async (t) => {
    t.strictSame((await alice('GET', '/')).json, (await alice('GET')).json)
    t.strictSame((await alice('GET', '/?status=completed')).json, [])
    t.strictSame((await alice('GET', `/${task.id}/`)).json, task)
    t.equal((await alice('PATCH', `/${task.id}/`, { title: 'a' })).status, 200)
    t.equal((await alice('PUT', `/${task.id}/`, { title: 'a' })).status, 200)
    t.equal((await alice('PATCH', `/${task.id}/complete/`, { completed: false })).status, 200)
    const created = await alice('POST', '/', { title: 'b' })
    t.equal(created.status, 201)
    t.equal((await alice('DELETE', `/${created.json.id}/`)).status, 204)
  })

  t.test('HEAD gets the answer of GET without a body', async (t) => {
    const bob = await clientOf(app, 'bob')
    for (const [client, path, status] of [
      [alice, '', 200],
      [alice, '?status=completed', 200],
      [alice, `/${task.id}`, 200],
      [alice, '?status=x', 422],
      [alice, `/${UNKNOWN_ID}`, 404],
      [alice, '/a/b/c', 404],
      [alice, '/%ff', 400],
      [alice, `/${task.id}/complete`, 405],
      [bob, COLLECTION, 403],
      [bob, `${COLLECTION}/${task.id}`, 403]
    ] as const) {
      const [get, head] = [await client('GET', path), await client('HEAD', path)]
      t.equal(get.status, status)
      t.equal(head.status, status)
      t.equal(head.text, '')
      for (const { headers } of [get, head]) {
        delete headers.date
        delete headers['x-request-id']
      }
      t.strictSame(head.headers, get.headers, path)
    }
  })

  const PATHS: [path: string, methods: string[]][] = [
    [COLLECTION, ['GET', 'HEAD', 'POST']],
    [`${COLLECTION}/`, ['GET', 'HEAD', 'POST']],
    [`${COLLECTION}?status=x`, ['GET', 'HEAD', 'POST']],
    [`${COLLECTION}/${UNKNOWN_ID}`, ['DELETE', 'GET', 'HEAD', 'PATCH', 'PUT']],
    [`${COLLECTION}/no-uuid`, ['DELETE', 'GET', 'HEAD', 'PATCH', 'PUT']],
    [`${COLLECTION}/${UNKNOWN_ID}/complete`, ['PATCH']],
    [`${COLLECTION}/${UNKNOWN_ID}/complete/`, ['PATCH']]
  ]
  for (const [path, allowed] of PATHS) {
    t.test(`405 with Allow for every other method on ${path}, with any body`, async (t) => {
      for (const method of METHODS) {
        // Node emits CONNECT as another event, not as a request.
        if (method === 'CONNECT' || allowed.includes(method)) continue
        const answers = [
          await alice(method, path),
          await alice(method, path, '{', JSON_TYPE),
          await alice(method, path, 'x', { 'content-type': 'text/plain' }),
          await alice(method, path, Buffer.alloc(70_000), JSON_TYPE)
        ]
        for (const answer of answers) {
          expectProblem(t, answer, 'method_not_allowed', method, method === 'HEAD')
          t.strictSame(answer.headers.allow?.split(', ').sort(), allowed)
        }
        expectProblem(t, await request(app, method, path), 'unauthorized', method, method === 'HEAD')
      }
    })
  }

  t.test('404 for an unknown path with every method, and 401 without a token', async (t) => {
    for (const path of [
      '/',
      '/api',
      '/api/alice',
      '/api/alice/task',
      '/API/alice/tasks',
      '/v1/api/alice/tasks',
      `${COLLECTION}/${task.id}/done`,
      `${COLLECTION}/${task.id}/complete/x`,
      `${COLLECTION}//`,
      '/metrics',
      '/docs',
      '/openapi.json',
      '/favicon.ico',
      '/*',
      '/.env'
    ]) {
      const authorization = `Bearer ${await sign({ sub: 'alice' })}`
      expectProblem(t, await request(app, 'GET', path, undefined, { authorization }), 'not_found', path)
      expectProblem(t, await request(app, 'GET', path), 'unauthorized', path)
    }
    for (const method of METHODS.filter((name) => name !== 'CONNECT')) {
      expectProblem(t, await alice(method, '/api/alice'), 'not_found', method, method === 'HEAD')
      expectProblem(t, await request(app, method, '/api/alice'), 'unauthorized', method, method === 'HEAD')
    }
  })

  t.test('400 for a path that cannot be decoded, and 401 without a token', async (t) => {
    for (const path of [
      '/%',
      '/api/%zz/tasks',
      '/api/%E0%A4%A/tasks',
      `${COLLECTION}/%ff`,
      `${COLLECTION}/%c3%28`
    ]) {
      for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS', 'PROPFIND']) {
        const authorization = `Bearer ${await sign({ sub: 'alice' })}`
        expectProblem(t, await request(app, method, path, undefined, { authorization }), 'bad_request', path)
        expectProblem(t, await request(app, method, path), 'unauthorized', path)
      }
    }
    const { headers } = await alice('GET', '/api/%zz/tasks', undefined, { origin: 'http://localhost:5173' })
    t.equal(headers['access-control-allow-origin'], 'http://localhost:5173', 'a browser can read it')
  })

  t.test('the user in the path is decoded exactly once, and compared exactly', async (t) => {
    for (const [user, path, status] of [
      ['alice', 'alice', 200],
      ['alice', '%61lice', 200],
      ['alice', '%2561lice', 403],
      ['alice', 'Alice', 403],
      ['alice', 'alice%20', 403],
      ['alice', '%20alice', 403],
      ['alice', 'alice%00', 403],
      ['alice', 'alice%0a', 403],
      ['alice', 'alice%2f', 403],
      ['alice', '', 403],
      ['a/b', 'a%2fb', 200],
      ['a/b', 'a%2Fb', 200],
      ['a/b', 'a%252fb', 403],
      ['a%2fb', 'a%252fb', 200],
      ['a%2fb', 'a%2fb', 403],
      ['%', '%25', 200],
      ['%25', '%2525', 200],
      ['%25', '%25', 403],
      ['a+b', 'a+b', 200],
      ['a+b', 'a%2Bb', 200],
      ['a b', 'a+b', 403],
      ['a b', 'a%20b', 200],
      ['a;b', 'a;b', 200],
      ['a?b', 'a%3Fb', 200],
      ['a#b', 'a%23b', 200],
      ['caf\u00e9', 'caf%C3%A9', 200],
      ['caf\u00e9', 'cafe%CC%81', 403],
      ['cafe\u0301', 'cafe%CC%81', 200],
      ['👩‍👩‍👧', encodeURIComponent('👩‍👩‍👧'), 200],
      ['a'.repeat(255), 'a'.repeat(255), 200],
      ['a'.repeat(255), 'a'.repeat(256), 403],
      ['💡'.repeat(255), encodeURIComponent('💡'.repeat(255)), 200],
      ['alice', 'a'.repeat(8_000), 403]
    ] as const) {
      const client = await clientOf(app, user)
      const answer = await client('GET', `/api/${path}/tasks`)
      t.equal(answer.status, status, `${user.slice(0, 20)} asks for ${path.slice(0, 20)}`)
      if (status === 403) expectProblem(t, answer, 'forbidden')
    }
  })

  t.test('404 for an id of any length', async (t) => {
    for (const length of [100, 101, 500, 8_000]) {
      expectProblem(t, await alice('GET', `/${'a'.repeat(length)}`), 'not_found', `${length}`)
    }
  })

  t.test('every operation ignores unknown query parameters, also repeated or malformed ones', async (t) => {
    const query = '?x=1&x=2&__proto__=3&constructor=4&y=%zz&&=&Status=completed'
    const { json } = await alice('POST', query, { title: 'a' })
    for (const [method, path, status, body] of [
      ['GET', '', 200],
      ['GET', `/${json.id}`, 200],
      ['PATCH', `/${json.id}`, 200, { title: 'b' }],
      ['PUT', `/${json.id}`, 200, { title: 'b' }],
      ['PATCH', `/${json.id}/complete`, 200],
      ['DELETE', `/${json.id}`, 204]
    ] as const) {
      t.equal((await alice(method, path + query, body)).status, status)
    }
  })
})

t.test('every answer has the security headers and the request id', async (t) => {
  addToNextApp((app) => {
    app.get('/api/bug', async () => {
      throw new Error('a bug')
    })
  })
  const app = await startApp(t)
  const alice = await clientOf(app, 'alice')
  const own = { 'request-id': 'mine' }
  const origin = { origin: 'http://localhost:5173', 'access-control-request-method': 'PUT' }
  const { json, ...created } = await alice('POST', '', { title: 'a' }, own)
  const answers: [number, Omit<Answer, 'json'>][] = [
    [201, created],
    [200, await alice('GET', '', undefined, own)],
    [200, await alice('HEAD', '', undefined, own)],
    [304, await alice('GET', `/${json.id}`, undefined, { ...own, 'if-none-match': '*' })],
    [412, await alice('DELETE', `/${json.id}`, undefined, { ...own, 'if-match': '"2"' })],
    [204, await alice('DELETE', `/${json.id}`, undefined, own)],
    [204, await request(app, 'OPTIONS', COLLECTION, undefined, { ...own, ...origin })],
    [400, await alice('GET', '/%', undefined, own)],
    [401, await request(app, 'GET', COLLECTION, undefined, own)],
    [403, await alice('GET', '/api/bob/tasks', undefined, own)],
    [404, await alice('GET', '/x', undefined, own)],
    [405, await alice('PUT', '', undefined, own)],
    [413, await alice('POST', '', Buffer.alloc(70_000), { ...own, ...JSON_TYPE })],
    [415, await alice('POST', '', 'x', { ...own, 'content-type': 'text/plain' })],
    [422, await alice('POST', '', {}, own)]
  ]
  t.strictSame(
    answers.map(([, { status }]) => status),
    answers.map(([status]) => status)
  )
  answers.push([500, await alice('GET', '/api/bug', undefined, own)])
  await app.db.close()
  answers.push([503, await alice('GET', '', undefined, own)])
  for (const [status, answer] of answers) {
    t.equal(answer.status, status)
    t.match(answer.headers, SECURITY_HEADERS, `${status}`)
  }
  const ids = answers.map(([, { headers }]) => headers['x-request-id'])
  for (const id of ids) t.match(id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
  t.equal(new Set(ids).size, ids.length)
})

t.test('a safe X-Request-Id of the request is used, returned and logged', async (t) => {
  const lines: string[] = []
  const logStream = { write: (line: string) => lines.push(line) }
  const app = await startApp(t, 'postgres', { LOG_LEVEL: 'debug' }, { logStream })
  const alice = await clientOf(app, 'alice')
  const idFor = async (id: string) => (await alice('GET', '', undefined, { 'x-request-id': id })).headers
  const sane = [
    'a',
    '42',
    '0199aa00-0000-7000-8000-000000000000',
    'f3a9c1d2e4b5a6978877665544332211',
    'GitHub:1A2B:3C4D',
    'web-1.request_7',
    'x'.repeat(64)
  ]
  for (const id of sane) t.equal((await idFor(id))['x-request-id'], id)
  t.strictSame(
    lines
      .map((line) => JSON.parse(line))
      .flatMap(({ msg, reqId }) => (msg === 'request answered' ? reqId : [])),
    sane
  )
  t.equal(
    (await request(app, 'GET', COLLECTION, undefined, { 'x-request-id': 'mine' })).headers['x-request-id'],
    'mine',
    '401'
  )

  lines.length = 0
  const hostile = [
    '',
    ' ',
    'a b',
    'a, b',
    'x'.repeat(65),
    'ä',
    'a\u0000b',
    '"}\n{"level":60',
    '<script>',
    '$(reboot)',
    'alice@example.com',
    "'; drop table tasks --",
    '../../etc/passwd',
    '\u001b[31m'
  ]
  for (const id of hostile) {
    const own = (await idFor(id))['x-request-id']
    t.match(own, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, JSON.stringify(id))
    if (id.trim() !== '') for (const line of lines) t.notOk(line.includes(id), 'not in the log')
  }
})

t.test('LOG_REQUESTS logs one JSON line for each request, with any answer', async (t) => {
  for (const [LOG_REQUESTS, expected] of [
    ['true', 4],
    ['false', 0]
  ] as const) {
    const lines: string[] = []
    const logStream = { write: (line: string) => lines.push(line) }
    const app = await startApp(t, 'postgres', { LOG_LEVEL: 'info', LOG_REQUESTS }, { logStream })
    const alice = await clientOf(app, 'alice')
    const { json } = await alice('POST', '', { title: 'Water the plants' })
    await alice('GET', `/${json.id}?secret=query`)
    await alice('GET', '/nowhere/at/all')
    const { headers } = await request(app, 'GET', COLLECTION)
    const logged = lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'request answered')
    t.equal(logged.length, expected, LOG_REQUESTS)
    if (expected === 0) continue
    t.match(logged, [
      { level: 30, req: { method: 'POST', route: '/api/:userId/tasks' }, res: { statusCode: 201 } },
      { level: 30, req: { method: 'GET', route: '/api/:userId/tasks/:taskId' }, res: { statusCode: 200 } },
      { level: 30, req: { method: 'GET' }, res: { statusCode: 404 } },
      { level: 30, reqId: headers['x-request-id'], res: { statusCode: 401 }, milliseconds: Number }
    ])
    for (const line of lines) t.notMatch(line, new RegExp(`alice|query|nowhere|plants|${json.id}`))
  }
})

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')

  t.test('a body of exactly 64 KiB is read, and one more byte is 413', async (t) => {
    const body = (size: number) => `{"title":"a"}`.padEnd(size)
    t.equal((await alice('POST', '', body(65_536), JSON_TYPE)).status, 201)
    expectProblem(t, await alice('POST', '', body(65_537), JSON_TYPE), 'body_too_large')
  })

  t.test('JSON may have a byte order mark, and its type may have any case and parameters', async (t) => {
    for (const type of [
      'application/json',
      'application/json; charset=utf-8',
      'APPLICATION/JSON;charset="UTF-8"'
    ]) {
      for (const mark of ['', '\ufeff']) {
        const { status, json } = await alice('POST', '', `${mark}{"title":"\ufeffa"}`, {
          'content-type': type
        })
        t.equal(status, 201, type)
        t.equal(json.title, '\ufeffa')
      }
    }
  })

  t.test('JSON in another encoding is refused', async (t) => {
    for (const encoding of ['utf16le', 'latin1'] as const) {
      const body = Buffer.from('{"title":"\u00e9"}', encoding)
      expectProblem(t, await alice('POST', '', body, JSON_TYPE), 'bad_request', encoding)
    }
  })
})

t.test('over a socket', async (t) => {
  const app = await startApp(t, 'embedded')
  await app.listen({ host: '127.0.0.1', port: 0 })
  const alice = await clientOf(app, 'alice')
  const authorization = `Authorization: Bearer ${await sign({ sub: 'alice' })}`
  const headers = ['Host: api', authorization, 'Connection: close']
  const type = 'Content-Type: application/json'
  const chunked = 'Transfer-Encoding: chunked'

  // Started first and awaited last, because they take 10 seconds.
  const started = Date.now()
  const slow = Promise.all(
    [
      '',
      'GET / HTTP/1.1\r\nHos',
      'GET / HTTP/1.1\r\nHost: api\r\n',
      `POST ${COLLECTION} HTTP/1.1\r\n${[...headers, type, 'Content-Length: 20'].join('\r\n')}\r\n\r\n{"title"`,
      `POST ${COLLECTION} HTTP/1.1\r\n${[...headers, type, chunked].join('\r\n')}\r\n\r\n8\r\n{"title"\r\n`
    ].map(async (bytes) => ({ bytes, received: await sendTo(app, bytes), after: Date.now() - started }))
  )

  t.test('an empty body counts as no body, in every form', async (t) => {
    for (const contentType of [[], [type], ['Content-Type: text/plain']]) {
      for (const [framing, rest] of [
        [[], ''],
        [['Content-Length: 0'], ''],
        [[chunked], '0\r\n\r\n']
      ] as const) {
        const { json: task } = await alice('POST', '', { title: 'a' })
        const path = `${COLLECTION}/${task.id}`
        const send = async (line: string) =>
          parseRaw(await sendTo(app, lines(line, ...headers, ...contentType, ...framing) + rest))
        const name = [...contentType, ...framing].join(', ') || 'nothing'
        const toggled = await send(`PATCH ${path}/complete HTTP/1.1`)
        t.match(toggled, { status: 200, json: { completed: true } }, name)
        t.equal((await send(`DELETE ${path} HTTP/1.1`)).status, 204, name)
        t.equal((await alice('GET', path)).status, 404)
      }
    }
  })

  t.test('a chunked body is read, and is 413 as soon as it is too large', async (t) => {
    const send = async (body: string) => {
      const half = body.length >> 1
      const chunks = [body.slice(0, half), body.slice(half), '']
        .map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`)
        .join('')
      return parseRaw(
        await sendTo(app, lines(`POST ${COLLECTION} HTTP/1.1`, ...headers, type, chunked) + chunks)
      )
    }
    t.match(await send('{"title":"in two pieces"}'), { status: 201, json: { title: 'in two pieces' } })
    t.equal((await send('{"title":"a"}'.padEnd(65_536))).status, 201)
    expectProblem(t, await send('{"title":"a"}'.padEnd(65_537)), 'body_too_large')
  })

  t.test('a request of HTTP/1.0 with chunks is the last one on its connection', async (t) => {
    const keepAlive = [...headers.filter((line) => !/^Connection/.test(line)), 'Connection: keep-alive']
    const one = lines(`POST ${COLLECTION} HTTP/1.0`, ...keepAlive, type, chunked)
    const received = await sendTo(
      app,
      `${one}d\r\n{"title":"a"}\r\n0\r\n\r\n${lines('GET / HTTP/1.0', ...keepAlive)}`
    )
    t.match(parseRaw(received), { status: 201, headers: { connection: 'close' } })
    t.equal(received.match(/^HTTP\/1\.1 /gm)?.length, 1)
  })

  t.test('a body whose Content-Length is too large is 413 before it is sent', async (t) => {
    const head = lines(`POST ${COLLECTION} HTTP/1.1`, ...headers, type, 'Content-Length: 9999999')
    expectProblem(t, parseRaw(await sendTo(app, head)), 'body_too_large')
  })

  t.test('a method that Node knows and this service does not is 405', async (t) => {
    for (const method of ['PROPFIND', 'TRACE', 'OPTIONS', 'M-SEARCH']) {
      const answer = parseRaw(await sendTo(app, lines(`${method} ${COLLECTION} HTTP/1.1`, ...headers)))
      expectProblem(t, answer, 'method_not_allowed', method)
    }
  })

  t.test('a target that is no path gets the usual error', async (t) => {
    for (const [line, code] of [
      ['OPTIONS * HTTP/1.1', 'not_found'],
      ['GET //api/alice/tasks HTTP/1.1', 'not_found'],
      ['GET /api/../api/alice/tasks HTTP/1.1', 'not_found'],
      ['GET * HTTP/1.1', 'not_found'],
      [`GET *${COLLECTION.slice(1)} HTTP/1.1`, 'bad_request'],
      [`GET *?x HTTP/1.1`, 'bad_request'],
      [`GET ftp://api${COLLECTION} HTTP/1.1`, 'bad_request'],
      [`GET http://${COLLECTION} HTTP/1.1`, 'bad_request'],
      [`GET http://api#${COLLECTION} HTTP/1.1`, 'bad_request'],
      ['GET http://api/%zz HTTP/1.1', 'bad_request'],
      ['GET http://api HTTP/1.1', 'not_found'],
      [`GET http://api?${COLLECTION} HTTP/1.1`, 'not_found']
    ] as const) {
      const received = await sendTo(app, lines(line, ...headers))
      const answer = parseRaw(received)
      // These never become a request, because Node's parser refuses them.
      if (answer.headers['x-request-id']) expectProblem(t, answer, code, line)
      else t.match(answer, { status: 400, json: { code: 'bad_request' } }, line)
      const anonymous = parseRaw(await sendTo(app, lines(line, 'Host: api', 'Connection: close')))
      t.equal(anonymous.status, answer.headers['x-request-id'] ? 401 : 400, line)
    }
  })

  t.test('a target may be an absolute URL', async (t) => {
    for (const origin of ['http://api', 'HTTPS://api:99999', 'http://user:password@[::1]:1']) {
      const answer = parseRaw(await sendTo(app, lines(`GET ${origin}${COLLECTION}?x HTTP/1.1`, ...headers)))
      t.equal(answer.status, 200, origin)
    }
  })

  t.test('input that cannot be parsed as HTTP gets a problem, and the connection is closed', async (t) => {
    const before = await rowsOf(app)
    const large = `X-Large: ${'a'.repeat(16_400)}`
    for (const [what, status, bytes] of [
      ['garbage', 400, 'garbage\r\n\r\n'],
      ['bytes', 400, Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00])],
      ['a method that does not exist', 400, lines('BREW / HTTP/1.1', ...headers)],
      ['a version that does not exist', 400, lines('GET / HTTP/9.9', ...headers)],
      ['no Host', 400, lines('GET / HTTP/1.1', authorization)],
      ['a header without a name', 400, lines('GET / HTTP/1.1', ...headers, ': x')],
      [
        'two lengths',
        400,
        lines(`POST ${COLLECTION} HTTP/1.1`, ...headers, 'Content-Length: 1', 'Content-Length: 2')
      ],
      [
        'a length and chunks',
        400,
        `${lines(`POST ${COLLECTION} HTTP/1.1`, ...headers, 'Content-Length: 3', chunked)}0\r\n\r\n`
      ],
      ['headers of more than 16 KiB', 431, lines('GET / HTTP/1.1', ...headers, large)],
      ['a URL of more than 16 KiB', 431, lines(`GET /${'a'.repeat(16_400)} HTTP/1.1`, ...headers)]
    ] as const) {
      const answer = parseRaw(await sendTo(app, bytes))
      t.match(
        answer,
        {
          status,
          headers: { 'content-type': 'application/problem+json', connection: 'close', ...SECURITY_HEADERS },
          json: { type: 'about:blank', status, code: 'bad_request', title: String, detail: String }
        },
        what
      )
      t.ok(answer.json.code in STATUS_OF)
      t.equal(answer.headers['content-length'], String(Buffer.byteLength(answer.text)))
    }
    t.strictSame(await rowsOf(app), before)
    t.equal((await alice('GET')).status, 200, 'the service goes on')
  })

  t.test('HTTP/1.0 needs no Host', async (t) => {
    const answer = parseRaw(await sendTo(app, lines(`GET ${COLLECTION} HTTP/1.0`, authorization)))
    t.equal(answer.status, 200)
  })

  t.test('an invalid chunk gets a problem, and nothing is created', async (t) => {
    const before = await rowsOf(app)
    const head = lines(`POST ${COLLECTION} HTTP/1.1`, ...headers, type, chunked)
    t.match(parseRaw(await sendTo(app, `${head}zz\r\n`)), { status: 400, json: { code: 'bad_request' } })
    t.strictSame(await rowsOf(app), before)
  })

  t.test('a client that disconnects in the middle of a body creates nothing', async (t) => {
    const before = await rowsOf(app)
    const { port } = app.server.address() as AddressInfo
    for (let i = 0; i < 10; i++) {
      await new Promise<void>((resolve) => {
        const socket = connect(port, '127.0.0.1', () => {
          socket.write(
            `${lines(`POST ${COLLECTION} HTTP/1.1`, ...headers, type, 'Content-Length: 13')}{"title":`
          )
          setTimeout(() => socket.resetAndDestroy(), 5)
        })
        socket.on('close', () => resolve())
      })
    }
    t.equal((await alice('GET')).status, 200)
    t.strictSame(await rowsOf(app), before)
  })

  t.test('a request that does not arrive within ten seconds is 408, at whatever byte it stops', async (t) => {
    for (const { bytes, received, after } of await slow) {
      const answer = parseRaw(received)
      t.match(
        answer,
        {
          status: 408,
          headers: { 'content-type': 'application/problem+json', ...SECURITY_HEADERS },
          json: { status: 408 }
        },
        JSON.stringify(bytes.slice(0, 60))
      )
      t.ok(after >= 9_500 && after < 25_000, `after ${after} ms`)
    }
  })
})

t.test('an unknown Expect is ignored', async (t) => {
  const app = await startApp(t)
  await app.listen({ port: 0, host: '127.0.0.1' })
  const head = 'GET /api/alice/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: the-unexpected\r\n'
  const token = await sign({ sub: 'alice' })
  t.equal(parseRaw(await sendTo(app, `${head}\r\n`)).status, 401)
  t.equal(parseRaw(await sendTo(app, `${head}Authorization: Bearer ${token}\r\n\r\n`)).status, 200)
})
