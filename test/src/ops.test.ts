import { buildOps, urlOf } from '../../src/ops.js'
import { clientOf, request, startApp } from '../support/api.js'
import { stopClock } from '../support/clock.js'
import { migratedDatabase } from '../support/databases.js'
import { until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'
import { startProxy } from '../support/tcp-proxy.js'

async function startOps(t: Test, env: Record<string, string> = {}) {
  const api = await startApp(t, 'postgres', env)
  await api.listenOnAll({ host: '127.0.0.1', port: 0 })
  const ops = await buildOps(api)
  t.teardown(() => ops.close())
  return { api, ops, get: async (url: string) => ops.inject(url) }
}

t.test('/ready waits a second for the database, less than the deadline of a statement', async (t) => {
  const proxy = await startProxy(t, await migratedDatabase(t))
  const { api, get } = await startOps(t, { DATABASE_URL: proxy.url })
  t.equal((await get('/ready')).statusCode, 200)
  proxy.freeze()
  t.teardown(() => proxy.thaw())
  const clock = stopClock(t)
  const answer = get('/ready')
  await until(() => api.db.figures().sent === 1)
  clock.advance(1_100)
  t.equal((await answer).statusCode, 503)
})

t.test('/ready checks the database, and /live does not', async (t) => {
  const proxy = await startProxy(t, await migratedDatabase(t))
  const { get } = await startOps(t, { DATABASE_URL: proxy.url })
  t.equal((await get('/ready')).statusCode, 200)

  const outages: [what: string, begin: () => unknown, end: () => unknown][] = [
    ['refuses', () => proxy.refuse(), () => proxy.listen()],
    [
      'does not answer',
      () => {
        proxy.freeze()
        proxy.mode = 'silent'
      },
      () => {
        proxy.mode = 'pass'
        proxy.thaw()
      }
    ],
    [
      'does not answer, and afterwards answers only new connections',
      () => {
        proxy.freeze()
        proxy.mode = 'silent'
      },
      () => {
        proxy.mode = 'pass'
      }
    ]
  ]
  for (const [what, begin, end] of outages) {
    t.test(`while the database ${what}`, async (t) => {
      await begin()
      await get('/ready')
      const { statusCode, body } = await get('/ready')
      t.equal(statusCode, 503)
      t.notMatch(body, /127\.0\.0\.1|ECONN|postgres/)
      t.equal((await get('/live')).statusCode, 200)
      await end()
      const until = performance.now() + 10_000
      while ((await get('/ready')).statusCode !== 200 && performance.now() < until);
      t.equal((await get('/ready')).statusCode, 200, 'and afterwards it is 200 again')
    })
  }
})

t.test('while draining /ready is 503 and /live is 200', async (t) => {
  const { ops, get } = await startOps(t)
  ops.drain()
  t.equal((await get('/ready')).statusCode, 503)
  t.equal((await get('/live')).statusCode, 200)
})

t.test('/metrics is Prometheus text with metrics of the process and of requests', async (t) => {
  const { api, get } = await startOps(t)
  const alice = await clientOf(api, 'alice')
  const { id } = (await alice('POST', '', { title: 'Water the plants' })).json
  await alice('GET', `/${id}?secret=query`)
  await alice('GET', `/${id}/`)
  await request(api, 'GET', '/api/alice/tasks')
  await alice('GET', '/api/nothing/here/at/all')
  await alice('GET', '/wp-admin.php'.replace('/', '/api/'))

  const { statusCode, headers, body } = await get('/metrics')
  t.equal(statusCode, 200)
  t.match(headers['content-type'], /^text\/plain; version=0\.0\.4/)
  const lines = body.trimEnd().split('\n')
  t.strictSame(
    lines.filter((line) => line && !/^(# (HELP|TYPE) \w+ .+|\w+(\{.*\})? \S+)$/.test(line)),
    [],
    'every line is of the format'
  )
  for (const name of [
    'process_cpu_seconds_total',
    'process_resident_memory_bytes',
    'nodejs_eventloop_lag_p99_seconds'
  ]) {
    t.ok(
      lines.some((line) => line.startsWith(`${name} `)),
      name
    )
  }
  const counts = Object.fromEntries(
    lines
      .filter((line) => line.startsWith('http_request_duration_seconds_count'))
      .map((line) => [/\{(.*)\}/.exec(line)?.[1], Number(line.split(' ').pop())])
      .filter(([labels, count]) => count !== 0 || !/status="500"/.test(String(labels)))
  )
  t.strictSame(counts, {
    'method="POST",route="/api/:userId/tasks",status="201"': 1,
    'method="GET",route="/api/:userId/tasks/:taskId",status="200"': 2,
    'method="GET",route="/api/:userId/tasks",status="401"': 1,
    'method="GET",route="none",status="404"': 2
  })
  t.ok(
    lines.some((line) =>
      /^http_request_duration_seconds_bucket\{le="\+Inf",.*route="\/api\/:userId\/tasks\/:taskId".*\} 2$/.test(
        line
      )
    )
  )
  t.notMatch(body, /alice|secret|nothing|wp-admin|Water the plants/)
  t.notMatch(body, id)
})

t.test('/openapi.json describes the API, with its URL', async (t) => {
  const { api, get } = await startOps(t)
  const { statusCode, headers, body } = await get('/openapi.json')
  t.equal(statusCode, 200)
  t.match(headers['content-type'], /^application\/json/)
  t.strictSame(JSON.parse(body), { ...api.swagger(), servers: [{ url: urlOf(api) }] })
})

t.test('every answer has the security headers', async (t) => {
  const { api, get } = await startOps(t)
  const answers = ['/live', '/ready', '/metrics', '/openapi.json', '/nowhere', '/%ff', '/docs']
  const { body } = await get('/docs')
  for (const [, asset] of body.matchAll(/(?:src|href)="([^"]+\.(?:js|css))"/g)) {
    answers.push(new URL(String(asset), 'http://ops.test/docs').pathname)
  }
  t.equal(answers.length, 11)
  const check = async (url: string, status: number) => {
    const { statusCode, headers } = await get(url)
    t.equal(statusCode, status, url)
    t.match(headers, { 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' }, url)
    const csp = String(headers['content-security-policy'])
    if (url.startsWith('/docs')) t.match(csp, /^default-src 'self';.* frame-ancestors 'none';/, url)
    else t.equal(csp, "default-src 'none'; frame-ancestors 'none'", url)
  }
  for (const url of answers) await check(url, url === '/nowhere' ? 404 : url === '/%ff' ? 400 : 200)
  await api.db.close()
  await check('/ready', 503)
})

t.test('no path shows a task, and every other path is 404', async (t) => {
  const { api, get } = await startOps(t)
  const alice = await clientOf(api, 'alice')
  const { id } = (await alice('POST', '', { title: 'Water the plants' })).json
  for (const url of ['/live', '/ready', '/metrics', '/openapi.json', '/docs']) {
    const { statusCode, body } = await get(url)
    t.equal(statusCode, 200, url)
    t.notMatch(body, id)
    t.notMatch(body, `"title":"Water the plants"`)
  }
  for (const url of [
    '/',
    '/api/alice/tasks',
    `/api/alice/tasks/${id}`,
    '/metrics/x',
    '/.env',
    '/docs/../package.json'
  ]) {
    t.equal((await get(url)).statusCode, 404, url)
  }
})
