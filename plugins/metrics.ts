import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client'
import { DatabaseUnavailable } from '../db/errors.js'
import { problemCodeOf, type ShedReason, shedReason } from './errors/catalogue.js'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: Registry
  }
}

/** Default gauges of prom-client whose names end in `_total`, which is for counters. */
const MISNAMED = [
  'nodejs_active_handles_total',
  'nodejs_active_requests_total',
  'nodejs_active_resources_total'
]

/** Node accepts more methods. If each had its own label, any client could add time series. */
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

/**
 * Decorates `app.metrics`. It has the metrics of the process, the duration of requests by route and status, and the
 * reasons of 503 answers.
 */
export default fp(
  async (app: FastifyInstance) => {
    const registry = new Registry()
    collectDefaultMetrics({ register: registry })
    for (const name of MISNAMED) registry.removeSingleMetric(name)
    const duration = new Histogram({
      name: 'http_request_duration_seconds',
      help: 'Time from the arrival of a request to the end of its answer, in seconds.',
      // The route's pattern, never the URL: few values, and no user ids.
      labelNames: ['method', 'route', 'status'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
      registers: [registry]
    })
    app.decorate('metrics', registry)
    app.addHook('onResponse', (request, reply, done) => {
      const method = METHODS.includes(request.method) ? request.method : 'other'
      const route = request.routeOptions.url ?? 'none'
      duration.observe({ method, route, status: reply.statusCode }, reply.elapsedTime / 1000)
      done()
    })

    const shed: Record<ShedReason, number> = {
      connection: 0,
      timeout: 0,
      overload: 0,
      standby: 0,
      closing: 0,
      keys: 0
    }
    countsOf(registry, {
      name: 'http_requests_shed_total',
      help: 'Requests that were answered 503, by the reason.',
      label: 'reason',
      counts: shed
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
 * Registers a counter with one label. The caller keeps a number for each value of the label in `counts`. So counting is
 * one addition, and every value starts at 0.
 */
export function countsOf(
  registry: Registry,
  { name, help, label, counts }: { name: string; help: string; label: string; counts: Record<string, number> }
): void {
  new Counter({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect() {
      this.reset()
      for (const [value, count] of Object.entries(counts)) this.inc({ [label]: labelled(value) }, count)
    }
  })
}

const labelled = (value: string) => value.replaceAll(' ', '_')
