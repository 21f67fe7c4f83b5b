import { setTimeout as pause } from 'node:timers/promises'
import Fastify from 'fastify'
import metrics from '../../plugins/metrics.js'
import t from '../support/tap.js'

async function start() {
  const app = Fastify({ logger: false })
  await app.register(metrics)
  app.get('/users/:id', async () => 'hello')
  app.get('/slow', async () => pause(60, 'done'))
  app.get('/broken', async () => {
    throw new Error('boom')
  })
  return app
}

type App = Awaited<ReturnType<typeof start>>

async function values(app: App, name: string) {
  const metric = await app.metrics.getSingleMetric('http_request_duration_seconds')?.get()
  const all = (metric?.values ?? []) as {
    metricName: string
    labels: Record<string, unknown>
    value: number
  }[]
  return all.filter(({ metricName }) => metricName === `http_request_duration_seconds_${name}`)
}

t.test('counts requests by route, method and status, not by URL', async (t) => {
  const app = await start()
  t.teardown(() => app.close())
  for (const url of ['/users/alice', '/users/bob?x=1', '/broken', '/nowhere', '/elsewhere'])
    await app.inject(url)
  await app.inject({ method: 'POST', url: '/users/alice' })
  t.strictSame(
    (await values(app, 'count'))
      .filter(({ value }) => value > 0)
      .map(({ labels, value }) => [labels.method, labels.route, labels.status, value]),
    [
      ['GET', '/broken', 500, 1],
      ['GET', '/users/:id', 200, 2],
      ['GET', 'none', 404, 2],
      ['POST', 'none', 404, 1]
    ]
  )
})

t.test('each route has a sample for 500 from the start, and so has no route', async (t) => {
  const app = await start()
  t.teardown(() => app.close())
  await app.ready()
  t.strictSame(
    (await values(app, 'count')).map(({ labels, value }) =>
      [labels.method, labels.route, labels.status, value].join(' ')
    ),
    [
      ...['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'other'].map(
        (method) => `${method} none 500 0`
      ),
      ...['/users/:id', '/slow', '/broken'].flatMap((route) => [`GET ${route} 500 0`, `HEAD ${route} 500 0`])
    ]
  )
})

t.test('measures the duration of a request in seconds', async (t) => {
  const app = await start()
  t.teardown(() => app.close())
  await app.inject('/slow')
  const ofSlow = async (name: string) =>
    (await values(app, name)).filter(({ labels }) => labels.route === '/slow' && labels.status === 200)
  const [sum] = await ofSlow('sum')
  t.ok(sum && sum.value >= 0.05 && sum.value < 30, `${sum?.value}`)
  const buckets = await ofSlow('bucket')
  t.equal(buckets.find(({ labels }) => labels.le === 0.025)?.value, 0)
  t.equal(buckets.find(({ labels }) => labels.le === '+Inf')?.value, 1)
})

t.test('two apps in one process have separate counters', async (t) => {
  const [one, other] = [await start(), await start()]
  t.teardown(() => Promise.all([one.close(), other.close()]))
  await one.inject('/users/alice')
  const counted = async (app: App) => (await values(app, 'count')).filter(({ value }) => value > 0).length
  t.equal(await counted(one), 1)
  t.equal(await counted(other), 0)
})
