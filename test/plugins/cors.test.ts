import { clientOf, request, startApp } from '../support/api.js'
import t, { type Test } from '../support/tap.js'

const APP = 'https://app.example.com'
const PATH = '/api/alice/tasks'
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

const preflight = (origin: string, method = 'PATCH') => ({
  origin,
  'access-control-request-method': method,
  'access-control-request-headers': 'authorization,content-type'
})

const words = (header: string | undefined) => (header ?? '').toLowerCase().split(/, */)

const REQUEST_HEADERS = [
  'authorization',
  'content-type',
  'idempotency-key',
  'if-match',
  'if-none-match',
  'x-request-id'
]
const RESPONSE_HEADERS = [
  'allow',
  'etag',
  'idempotency-replayed',
  'location',
  'retry-after',
  'www-authenticate',
  'x-request-id'
]

/** Checks that no header allows a page to read the answer. */
function isHidden(t: Test, headers: Record<string, string | undefined>, name: string) {
  t.equal(headers['access-control-allow-origin'], undefined, name)
}

t.test('with a list of origins', async (t) => {
  const app = await startApp(t, 'postgres', { CORS_ORIGIN: `https://other.example.com, ${APP}` })
  const alice = await clientOf(app, 'alice')
  const origin = { origin: APP }

  t.test('a preflight needs no token, and allows all methods and request headers of the API', async (t) => {
    for (const path of [PATH, `${PATH}/0199aa00-0000-7000-8000-000000000000/complete`, '/nowhere']) {
      for (const method of METHODS) {
        const { status, headers, text } = await request(
          app,
          'OPTIONS',
          path,
          undefined,
          preflight(APP, method)
        )
        t.equal(status, 204, `${method} ${path}`)
        t.equal(text, '')
        t.equal(headers['access-control-allow-origin'], APP)
        t.equal(headers['access-control-allow-credentials'], 'true')
        t.strictSame(words(headers['access-control-allow-methods']), words(METHODS.join()))
        t.strictSame(words(headers['access-control-allow-headers']), REQUEST_HEADERS)
        t.ok(words(headers.vary).includes('origin'))
      }
    }
  })

  t.test("a preflight allows other headers that a page's libraries add", async (t) => {
    const tooling = [
      'baggage',
      'sentry-trace',
      'traceparent',
      'tracestate',
      'X-Requested-With',
      'x-b3-traceid',
      'x-datadog-trace-id',
      "!#$%&'*+.^_`|~-9"
    ]
    const allowed = async (asked: string) => {
      const headers = { ...preflight(APP), 'access-control-request-headers': asked }
      const answer = await request(app, 'OPTIONS', PATH, undefined, headers)
      t.equal(answer.status, 204, asked)
      return words(answer.headers['access-control-allow-headers'])
    }
    const names = tooling.map((name) => name.toLowerCase())
    t.strictSame(await allowed(tooling.join()), [...REQUEST_HEADERS, ...names], 'all at once')
    t.strictSame(await allowed(['Authorization', ...tooling].join(', ')), [...REQUEST_HEADERS, ...names])
    for (const name of names) t.strictSame(await allowed(name), [...REQUEST_HEADERS, name], name)
    for (const none of ['', ',', ' , ,', 'a b', 'ä', 'a;b', '"a"', 'a:b', 'IF-MATCH,authorization']) {
      t.strictSame(await allowed(none), REQUEST_HEADERS, `${JSON.stringify(none)} is no header more`)
    }
    t.strictSame(await allowed('b,a,b,a'), [...REQUEST_HEADERS, 'b', 'a'], 'each once')
  })

  t.test('the headers of an answer have less than 4 KiB, which nginx takes', async (t) => {
    const many = Array.from({ length: 5_000 }, (_, n) => n.toString(36))
    for (const length of [1_000, 1_024, 1_025, 5_200, 15_000]) {
      const asked = many.join().slice(0, length)
      const headers = { ...preflight(APP), 'access-control-request-headers': asked }
      const answer = await request(app, 'OPTIONS', PATH, undefined, headers)
      t.equal(answer.status, 204)
      t.ok(JSON.stringify(answer.headers).length < 4_096, `${length}`)
    }
  })

  t.test('an answer allows the page, whatever other headers the request has', async (t) => {
    const headers = { ...origin, baggage: 'a=b', traceparent: '00-1-1-01', 'x-request-id': 'mine' }
    const answer = await alice('GET', '', undefined, headers)
    t.equal(answer.status, 200)
    t.equal(answer.headers['access-control-allow-origin'], APP)
    t.equal(answer.headers['x-request-id'], 'mine')
  })

  t.test('a page from any other origin may read nothing', async (t) => {
    const others = [
      'https://evil.example',
      'http://app.example.com',
      'https://app.example.com:8443',
      'https://app.example.com.evil.example',
      'https://evil-app.example.com',
      'https://APP.example.com',
      'http://localhost:3000',
      'null',
      '*'
    ]
    for (const other of others) {
      isHidden(t, (await request(app, 'OPTIONS', PATH, undefined, preflight(other))).headers, other)
      isHidden(t, (await alice('GET', '', undefined, { origin: other })).headers, `GET from ${other}`)
    }
  })

  t.test("the answer allows the page's origin to read its headers", async (t) => {
    const { status, headers } = await alice('POST', '', { title: 'Buy milk' }, origin)
    t.equal(status, 201)
    t.equal(headers['access-control-allow-origin'], APP)
    t.equal(headers['access-control-allow-credentials'], 'true')
    t.strictSame(words(headers['access-control-expose-headers']), RESPONSE_HEADERS)
    t.ok(words(headers.vary).includes('origin'), 'no cache gives it to another page')
    t.ok(words((await alice('GET')).headers.vary).includes('origin'), 'not even without an origin')
  })

  t.test('a page can read the status of an error', async (t) => {
    const json = { 'content-type': 'application/json' }
    const errors: [status: number, method: string, path: string, body?: unknown, headers?: object][] = [
      [400, 'GET', '/api/%zz/tasks'],
      [400, 'POST', '', '{', json],
      [401, 'GET', '', undefined, { authorization: 'Bearer nonsense' }],
      [401, 'GET', '/api/%zz/tasks', undefined, { authorization: 'Bearer nonsense' }],
      [401, 'PUT', '/nowhere', undefined, { authorization: '' }],
      [403, 'GET', '/api/bob/tasks'],
      [404, 'GET', '/api'],
      [404, 'GET', '/no-uuid'],
      [405, 'DELETE', ''],
      [405, 'TRACE', ''],
      [413, 'POST', '', JSON.stringify({ title: 'x'.repeat(70_000) }), json],
      [415, 'POST', '', '<a/>', { 'content-type': 'text/xml' }],
      [422, 'POST', '', {}]
    ]
    for (const [expected, method, path, body, more] of errors) {
      const { status, headers } = await alice(method, path, body, { ...origin, ...more })
      t.equal(status, expected, `${method} ${path}`)
      t.equal(headers['access-control-allow-origin'], APP, `${expected} ${method} ${path}`)
      t.equal(headers['access-control-allow-credentials'], 'true')
    }
  })

  t.test('an OPTIONS request that is no preflight needs a token', async (t) => {
    const none: Record<string, string>[] = [
      {},
      origin,
      { 'access-control-request-method': 'GET' },
      { ...origin, 'access-control-request-headers': 'authorization' },
      { ...origin, 'access-control-request-method': '' },
      { origin: '', 'access-control-request-method': 'GET' }
    ]
    for (const headers of none) {
      const name = JSON.stringify(headers)
      t.equal((await request(app, 'OPTIONS', PATH, undefined, headers)).status, 401, name)
      const known = await alice('OPTIONS', '', undefined, headers)
      t.equal(known.status, 405, name)
      t.strictSame(words(known.headers.allow).sort(), ['get', 'head', 'post'], name)
      t.equal((await alice('OPTIONS', '/api', undefined, headers)).status, 404, name)
    }
  })
})

t.test('listed origins of apps and browser extensions are allowed', async (t) => {
  const apps = [
    'capacitor://localhost',
    'tauri://localhost',
    'chrome-extension://abcdefghijklmnop',
    'app://My.App'
  ]
  const app = await startApp(t, 'postgres', { CORS_ORIGIN: apps.join(), NODE_ENV: 'production' })
  const alice = await clientOf(app, 'alice')
  for (const origin of apps) {
    const asked = await request(app, 'OPTIONS', PATH, undefined, preflight(origin))
    t.equal(asked.status, 204, origin)
    t.equal(asked.headers['access-control-allow-origin'], origin)
    t.equal((await alice('GET', '', undefined, { origin })).headers['access-control-allow-origin'], origin)
  }
  for (const other of [
    'capacitor://localhost:1',
    'capacitor://localhost.evil',
    'ionic://localhost',
    'app://my.app'
  ]) {
    isHidden(t, (await request(app, 'OPTIONS', PATH, undefined, preflight(other))).headers, other)
    isHidden(t, (await alice('GET', '', undefined, { origin: other })).headers, `GET from ${other}`)
  }
})

t.test('* allows every page, without credentials', async (t) => {
  const app = await startApp(t, 'postgres', { CORS_ORIGIN: '*', NODE_ENV: 'production' })
  const alice = await clientOf(app, 'alice')
  const answers = {
    preflight: await request(app, 'OPTIONS', PATH, undefined, preflight('https://any.example')),
    answer: await alice('GET', '', undefined, { origin: 'https://any.example' }),
    error: await request(app, 'GET', PATH, undefined, { origin: 'null' })
  }
  t.strictSame(
    Object.values(answers).map(({ status }) => status),
    [204, 200, 401]
  )
  for (const [name, { headers }] of Object.entries(answers)) {
    t.equal(headers['access-control-allow-origin'], '*', name)
    t.equal(headers['access-control-allow-credentials'], undefined, name)
  }
  t.strictSame(words(answers.preflight.headers['access-control-allow-methods']), words(METHODS.join()))
})

t.test('in production no page is allowed by default, and preflights get 401', async (t) => {
  const app = await startApp(t, 'postgres', { NODE_ENV: 'production' })
  const alice = await clientOf(app, 'alice')
  for (const origin of [APP, 'http://localhost:3000']) {
    const asked = await request(app, 'OPTIONS', PATH, undefined, preflight(origin))
    t.equal(asked.status, 401, origin)
    const answer = await alice('GET', '', undefined, { origin })
    t.equal(answer.status, 200, origin)
    for (const { headers } of [asked, answer]) {
      t.notOk(
        Object.keys(headers).some((name) => name.startsWith('access-control-')),
        origin
      )
    }
    t.equal((await alice('OPTIONS', '', undefined, preflight(origin))).status, 405, 'with a token')
    t.equal((await alice('OPTIONS', '/api', undefined, preflight(origin))).status, 404, 'with a token')
  }
})

t.test('outside production pages on this machine are allowed, on any port', async (t) => {
  const app = await startApp(t)
  const local = [
    'http://localhost',
    'http://localhost:3000',
    'http://localhost:5173',
    'http://localhost:65535',
    'http://127.0.0.1',
    'http://127.0.0.1:8080'
  ]
  for (const origin of local) {
    const { status, headers } = await request(app, 'OPTIONS', PATH, undefined, preflight(origin))
    t.equal(status, 204, origin)
    t.equal(headers['access-control-allow-origin'], origin)
    t.equal(headers['access-control-allow-credentials'], 'true')
  }
  const others = [
    'http://localhost.evil.com',
    'http://localhost:3000.evil.com',
    'http://localhost:',
    'http://localhost:abc',
    'http://evil-localhost:3000',
    'http://evil.com/http://localhost',
    'http://127.0.0.1.evil.com',
    'http://127.0.0.2',
    'http://127x0x0x1',
    'http://user@localhost',
    'https://localhost',
    'https://localhost:3000',
    'https://127.0.0.1',
    'HTTP://localhost',
    'http://localhost\nx',
    'http://0.0.0.0:3000',
    'http://[::1]:3000',
    'null',
    'file://'
  ]
  for (const origin of others) {
    isHidden(t, (await request(app, 'OPTIONS', PATH, undefined, preflight(origin))).headers, origin)
  }
})
