import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client'
import { DatabaseUnavailable } from '../db/errors.js'
import { problemCodeOf, SHED_REASONS, shedReason } from './errors/catalogue.js'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: Registry
  }
}

/** Node accepts more methods. If each had its own label, any client could add time series. */
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']
const OTHER_METHOD = 'other'
const NO_ROUTE = 'none'

/**
 * Decorates `app.metrics`. It has the metrics of the process, the duration of requests by route and status, and the
 * reasons of 503 answers.
 */
export default fp(
  async (app: FastifyInstance) => {
    const registry = new Registry()
    collectDefaultMetrics({ register: registry })
    // These gauges of prom-client have names that end in `_total`, which is for counters.
    for (const name of ['handles', 'requests', 'resources']) {
      registry.removeSingleMetric(`nodejs_active_${name}_total`)
    }
    const duration = new Histogram({
      name: 'http_request_duration_seconds',
      help: 'Time from the arrival of a request to the end of its answer, in seconds.',
      // The route's pattern, never the URL: few values, and no user ids.
      labelNames: ['method', 'route', 'status'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
      registers: [registry]
    })
    app.decorate('metrics', registry)
    // Prometheus does not notice the first 500 of a route whose sample appears with it: increase() of that is 0.
    app.addHook('onRoute', ({ method, url }) => {
      for (const name of [method].flat()) {
        if (METHODS.includes(name)) duration.zero({ method: name, route: url, status: 500 })
      }
    })
    for (const method of [...METHODS, OTHER_METHOD]) duration.zero({ method, route: NO_ROUTE, status: 500 })
    app.addHook('onResponse', (request, reply, done) => {
      const method = METHODS.includes(request.method) ? request.method : OTHER_METHOD
      const route = request.routeOptions.url ?? NO_ROUTE
      duration.observe({ method, route, status: reply.statusCode }, reply.elapsedTime / 1000)
      done()
    })

    const shed = countsOf(registry, {
      name: 'http_requests_shed_total',
      help: 'Requests that were answered 503, by the reason.',
      label: 'reason',
      values: SHED_REASONS
    })
    app.addHook('onError', (_request, _reply, error, done) => {
      if (error instanceof DatabaseUnavailable || problemCodeOf(error) === 'unavailable')
        shed[shedReason(error)]++
      done()
    })
  },
  { name: 'metrics' }
)

/**
 * Registers a counter with one label, and returns a number for each value of the label. So counting is one addition, and
 * every value starts at 0.
 */
export function countsOf<Value extends string>(
  registry: Registry,
  { name, help, label, values }: { name: string; help: string; label: string; values: readonly Value[] }
): Record<Value, number> {
  const counts = Object.fromEntries(values.map((value) => [value, 0])) as Record<Value, number>
  new Counter({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect() {
      this.reset()
      for (const value of values) this.inc({ [label]: value.replaceAll(' ', '_') }, counts[value])
    }
  })
  return counts
}
