import { randomUUID } from 'node:crypto'
import { FastifyOtelInstrumentation } from '@fastify/otel'
import {
  type Attributes,
  type Context,
  context,
  DiagLogLevel,
  diag,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace
} from '@opentelemetry/api'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto'
import { UndiciInstrumentation } from '@opentelemetry/instrumentation-undici'
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes
} from '@opentelemetry/resources'
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { DatabaseUnavailable } from '../db/errors.js'
import type { BuiltStatement, Database, Values } from '../db/index.js'
import { causeOf } from '../db/sqlstate.js'

/** Timeout for sending the last spans when the service stops, in milliseconds. */
const FLUSH_MS = 3_000
/** Minimum time between two log lines about the collector, in milliseconds. */
const LOG_INTERVAL_MS = 60_000

export interface Tracing {
  /** Must be registered before all other plugins. */
  plugin: (app: FastifyInstance) => Promise<void>
  /** Wraps the database: each statement of a sampled request gets a span. */
  database(db: Database): Database
  /** Sends the last spans. Never throws. */
  stop(): Promise<void>
}

/**
 * Starts OpenTelemetry. Its SDK reads the variables of the sampler, the exporter and the batches from the environment.
 *
 * This file is imported only if tracing is on. The SDK takes time and memory to load, and its context manager slows every
 * promise on Node 20.
 */
export function startTracing({ serviceName, version }: { serviceName: string; version: string }): Tracing {
  const provider = new NodeTracerProvider({
    resource: defaultResource()
      .merge(detectResources({ detectors: [envDetector] }))
      .merge(
        resourceFromAttributes({
          'service.name': serviceName,
          'service.version': version,
          'service.instance.id': randomUUID()
        })
      ),
    // While the collector is slow or dead the queue fills up, and further spans are dropped.
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())]
  })
  // No baggage propagator: a client's baggage must not reach the key server.
  provider.register({ propagator: new W3CTraceContextPropagator() })
  const fetches = new UndiciInstrumentation({
    requireParentforSpans: true,
    // The query may contain an API key.
    startSpanHook: ({ origin, path }) => ({ 'url.full': `${origin}${path.split('?')[0]}`, 'url.query': '' })
  })
  const requests = new FastifyOtelInstrumentation({
    instrumentHooks: false,
    instrumentHandler: false,
    recordExceptions: false,
    requestHook: describeRequest
  })

  return {
    plugin: fp(
      async (app) => {
        logFailures(app)
        await app.register(requests.plugin())
        // The onError hook of @fastify/otel marks every 4xx as an error, and records the message of each error.
        app.addHook('onRoute', (route) => {
          delete route.onError
        })
        app.addHook('onRequest', (request, reply, done) => {
          const { span } = request.opentelemetry()
          if (!span?.isRecording()) return done()
          const { traceId, spanId } = span.spanContext()
          request.log = reply.log = request.log.child({ trace_id: traceId, span_id: spanId })
          done()
        })
        // Handlers run in an event of the body's stream, which is outside of the request's context. This sets it again.
        app.addHook('preHandler', (request, _reply, done) => {
          context.with(request.opentelemetry().context as Context, done)
        })
        app.addHook('onSend', (request, { statusCode }, _payload, done) => {
          if (statusCode >= 500) {
            const span = request.opentelemetry().span as Span | null
            span?.setStatus({ code: SpanStatusCode.ERROR }).setAttribute('error.type', String(statusCode))
          }
          done()
        })
      },
      { name: 'tracing' }
    ),
    database: traced,
    async stop() {
      fetches.disable()
      const late = new Promise<void>((resolve) => setTimeout(resolve, FLUSH_MS).unref())
      await Promise.race([provider.shutdown().catch(() => {}), late])
    }
  }
}

/** Follows the semantic conventions, but with the route's pattern as path: the real path contains the user id. */
function describeRequest(span: Span, request: FastifyRequest): void {
  if (!span.isRecording()) return
  const { url } = request.routeOptions
  span.updateName(url === undefined ? request.method : `${request.method} ${url}`)
  span.setAttributes({ 'url.path': url ?? '', 'url.scheme': request.protocol })
}

/** Logs the SDK's warnings, at most one a minute: spans are dropped, or the collector refuses them. */
function logFailures({ log }: FastifyInstance): void {
  let loggedAt = Number.NEGATIVE_INFINITY
  const warn = (message: string) => {
    const now = performance.now()
    if (now < loggedAt + LOG_INTERVAL_MS) return
    loggedAt = now
    log.warn(`tracing: ${message}`)
  }
  const ignore = () => {}
  diag.setLogger({ error: warn, warn, info: ignore, debug: ignore, verbose: ignore }, DiagLogLevel.WARN)
}

const tracer = trace.getTracer('tasks-api')

function traced(db: Database): Database {
  const promise =
    <Row>(attributes: Attributes, run: (values: Values) => Promise<Row[]>) =>
    async (values: Values): Promise<Row[]> => {
      const span = startSpan(attributes)
      if (span === undefined) return run(values)
      try {
        return await run(values)
      } catch (error) {
        throw fail(span, error)
      } finally {
        span.end()
      }
    }
  return {
    ...db,
    prepareRead: (statement) => promise(attributesOf(statement), db.prepareRead(statement)),
    prepareWrite: (statement, lockTarget) =>
      promise(attributesOf(statement), db.prepareWrite(statement, lockTarget)),
    prepareStream<Row>(statement: BuiltStatement<Row>) {
      const attributes = attributesOf(statement)
      const run = db.prepareStream(statement)
      return async function* (values: Values) {
        const span = startSpan(attributes)
        try {
          yield* run(values)
        } catch (error) {
          throw span === undefined ? error : fail(span, error)
        } finally {
          span?.end()
        }
      }
    }
  }
}

/** Starts a child of the request's span, if that is sampled. */
function startSpan(attributes: Attributes): Span | undefined {
  if (!trace.getActiveSpan()?.isRecording()) return undefined
  return tracer.startSpan(String(attributes['db.query.summary']), { kind: SpanKind.CLIENT, attributes })
}

/** Marks the span as failed, without the error's message: that may contain a user's text. */
function fail(span: Span, error: unknown): unknown {
  const { code } = Object(causeOf(error))
  const isSqlstate = typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)
  span.setStatus({ code: SpanStatusCode.ERROR })
  span.setAttribute(
    'error.type',
    error instanceof DatabaseUnavailable ? error.reason : String(code ?? 'error')
  )
  if (isSqlstate) span.setAttribute('db.response.status_code', code)
  return error
}

/** Follows the semantic conventions for PostgreSQL. The text has placeholders, not values. */
function attributesOf(statement: BuiltStatement<unknown>): Attributes {
  const { sql: text } = statement.toSQL()
  const operation = /^\w+/.exec(text)?.[0].toUpperCase() ?? ''
  const collection = /\b(?:from|into|update) "(\w+)"/.exec(text)?.[1] ?? ''
  return {
    'db.system.name': 'postgresql',
    'db.operation.name': operation,
    'db.collection.name': collection,
    'db.query.summary': `${operation} ${collection}`,
    'db.query.text': text
  }
}
