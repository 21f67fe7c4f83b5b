import { randomUUID } from 'node:crypto'
import { FastifyOtelInstrumentation } from '@fastify/otel'
import {
  type Attributes,
  type Context,
  context,
  DiagLogLevel,
  diag,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace
} from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto'
import { UndiciInstrumentation } from '@opentelemetry/instrumentation-undici'
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes
} from '@opentelemetry/resources'
import {
  BatchSpanProcessor,
  NodeTracerProvider,
  ParentBasedSampler,
  type Sampler,
  SamplingDecision,
  TraceIdRatioBasedSampler
} from '@opentelemetry/sdk-trace-node'
import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import type { Logger } from 'pino'
import { DatabaseUnavailable } from '../db/errors.js'
import type { BuiltStatement, Database, Values } from '../db/index.js'
import { causeOf } from '../db/sqlstate.js'
import { countEvery } from './count-every.js'

/** Timeout for sending the last spans when the service stops, in milliseconds. */
const FLUSH_MS = 1_500
/** At most so many traces are sampled together. */
const LOT_TRACES = 32
/** Only traces that start within this time are sampled together, in milliseconds. */
const LOT_MS = 20
/** Minimum time between two log lines about the collector, in milliseconds. */
const LOG_INTERVAL_MS = 60_000

const SPAN = Symbol('span of the request')

interface TracedLogger extends Logger {
  [SPAN]?: SpanContext
}

export interface Tracing {
  /** Must be registered before all other plugins. */
  plugin: (app: FastifyInstance) => Promise<void>
  /** Wraps the database: each statement of a sampled request gets a span. */
  database(db: Database): Database
  /** Pino's mixin: returns the fields that a log line of a sampled request gets. */
  logFields(line: object, level: number, log: Logger): object
  /** Sends the last spans. Never throws. */
  stop(): Promise<void>
}

export interface Sampling {
  /** The share of new traces to sample, from 0 to 1. */
  share: number
  /** True samples a trace that is continued if its `traceparent` says so. False samples the same share of these. */
  parentBased: boolean
}

export interface TracingOptions {
  serviceName: string
  sampling: Sampling
  version: string
}

/**
 * Starts OpenTelemetry. Its SDK reads the variables of the exporter and the batches from the environment.
 *
 * This file is imported only if tracing is on. The SDK takes time and memory to load, and its context manager slows every
 * promise on Node 20.
 */
export function startTracing({ serviceName, sampling, version }: TracingOptions): Tracing {
  const newTraces = new NewTraces(sampling.share)
  const provider = new NodeTracerProvider({
    sampler: samplerOf(sampling, newTraces),
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
  provider.register({
    propagator: new W3CTraceContextPropagator(),
    contextManager: new RecordedContextManager()
  })
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
        const start = requestHookOf(app, requests)
        app.addHook('onRequest', (request, reply, done) => {
          if (!newTraces.draw() && request.headers.traceparent === undefined) return done()
          // Also emitted if the client leaves before the whole answer is sent. No onResponse hook would run then.
          reply.raw.once('close', () => endSpan(request, reply))
          start.call(app, request, reply, done)
        })
      },
      { name: 'tracing' }
    ),
    database: traced,
    logFields,
    async stop() {
      fetches.disable()
      const late = new Promise<void>((resolve) => setTimeout(resolve, FLUSH_MS).unref())
      await Promise.race([provider.shutdown().catch(() => {}), late])
    }
  }
}

/**
 * Draws lots for several traces that start one after the other. Each is sampled with the same probability as if lots were
 * drawn for it alone. Requests that are sampled in a row find their code and data in the processor's caches.
 *
 * The number of traces ends a lot, not only time. A sampled request takes longer, so under full load fewer of them fit into
 * the same time, and less than the share would be sampled.
 *
 * Lots are drawn before anything is done for a span, which costs the requests that are not sampled the least time. The
 * decision does not depend on the trace id, which does not exist yet.
 */
class NewTraces implements Sampler {
  readonly #share: number
  #isSampled = false
  /** How many more traces the present lot decides on. */
  #left = 0
  readonly #expiry = setTimeout(() => {
    this.#left = 0
  }, LOT_MS).unref()

  /** @param share of the traces to sample, from 0 to 1 */
  constructor(share: number) {
    this.#share = share
  }

  /** Returns true if the next trace is sampled, unless it is continued. */
  draw(): boolean {
    if (this.#left === 0) {
      this.#left = LOT_TRACES
      this.#isSampled = Math.random() < this.#share
      this.#expiry.refresh()
    }
    this.#left--
    return this.#isSampled
  }

  shouldSample() {
    return {
      decision: this.#isSampled ? SamplingDecision.RECORD_AND_SAMPLED : SamplingDecision.NOT_RECORD
    }
  }
}

function samplerOf({ share, parentBased }: Sampling, root: Sampler): Sampler {
  if (parentBased) return new ParentBasedSampler({ root })
  // The trace id decides, so all services with the same share sample the same traces.
  const remote = new TraceIdRatioBasedSampler(share)
  return new ParentBasedSampler({ root, remoteParentSampled: remote, remoteParentNotSampled: remote })
}

/**
 * Registers @fastify/otel, but keeps its hooks from `app`, and returns the one that starts a request's span. So requests that
 * are not sampled do not run them.
 *
 * Its hook for new routes is left out. To each route it would add an onError hook, which marks each 4xx as an error and
 * records the messages of errors. It would also add an onSend hook, which ends the span before the answer is sent.
 */
function requestHookOf(
  app: FastifyInstance,
  instrumentation: FastifyOtelInstrumentation
): onRequestHookHandler {
  const hooks: Record<string, unknown> = {}
  const { addHook, setNotFoundHandler } = app
  app.addHook = (name: string, hook: unknown) => {
    hooks[name] = hook
    return app
  }
  instrumentation.plugin()(app, {}, () => {})
  Object.assign(app, { addHook, setNotFoundHandler })
  return hooks.onRequest as onRequestHookHandler
}

function endSpan(request: FastifyRequest, { raw, statusCode }: FastifyReply): void {
  const { span } = request.opentelemetry()
  if (raw.headersSent) span?.setAttribute('http.response.status_code', statusCode)
  if (statusCode >= 500) {
    span?.setStatus({ code: SpanStatusCode.ERROR }).setAttribute('error.type', String(statusCode))
  }
  span?.end()
}

/**
 * Enters the context of a recorded span only. Node's AsyncLocalStorage would otherwise slow each request, although the
 * sampler leaves most of them out.
 */
class RecordedContextManager extends AsyncLocalStorageContextManager {
  override with<A extends unknown[], F extends (...args: A) => ReturnType<F>>(
    to: Context,
    fn: F,
    thisArg?: ThisParameterType<F>,
    ...args: A
  ): ReturnType<F> {
    if (trace.getSpan(to)?.isRecording() === false) return fn.apply(thisArg, args)
    return super.with(to, fn, thisArg, ...args)
  }
}

/** Follows the semantic conventions, but with the route's pattern as path: the real path contains the user id. */
function describeRequest(span: Span, request: FastifyRequest): void {
  if (!span.isRecording()) return
  // Each request has a logger of its own.
  const log = request.log as TracedLogger
  log[SPAN] = span.spanContext()
  const { url } = request.routeOptions
  span.updateName(url === undefined ? request.method : `${request.method} ${url}`)
  span.setAttributes({ 'url.path': url ?? '', 'url.scheme': request.protocol })
}

/** With pino's setBindings, each sampled request would write the fields as JSON. Most requests log no line. */
function logFields(_line: object, _level: number, log: TracedLogger): object {
  const span = log[SPAN]
  return span === undefined ? {} : { trace_id: span.traceId, span_id: span.spanId }
}

/** Logs the SDK's warnings, at most one a minute: spans are dropped, or the collector refuses them. */
function logFailures({ log }: FastifyInstance): void {
  const failures = countEvery(LOG_INTERVAL_MS)
  const warn = (message: string) => {
    if (failures() !== undefined) log.warn(`tracing: ${message}`)
  }
  const ignore = () => {}
  diag.setLogger({ error: warn, warn, info: ignore, debug: ignore, verbose: ignore }, DiagLogLevel.WARN)
}

const tracer = trace.getTracer('tasks-api')

function traced(db: Database): Database {
  const promise =
    <Row>(attributes: Attributes, run: (values: Values) => Promise<Row[]>) =>
    (values: Values): Promise<Row[]> => {
      const span = startSpan(attributes)
      return span === undefined ? run(values) : recorded(span, () => run(values))
    }
  return {
    ...db,
    prepareRead: (statement) => promise(attributesOf(statement), db.prepareRead(statement)),
    prepareWrite: (statement, lockTarget) =>
      promise(attributesOf(statement), db.prepareWrite(statement, lockTarget)),
    prepareStream<Row>(statement: BuiltStatement<Row>, userOf: (values: Values) => string) {
      const attributes = attributesOf(statement)
      const run = db.prepareStream(statement, userOf)
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

async function recorded<Row>(span: Span, run: () => Promise<Row[]>): Promise<Row[]> {
  try {
    return await run()
  } catch (error) {
    throw fail(span, error)
  } finally {
    span.end()
  }
}

/** Starts a child of the request's span, if that is sampled. */
function startSpan(attributes: Attributes): Span | undefined {
  const parent = context.active()
  // Only the context of a sampled request is ever entered.
  if (parent === ROOT_CONTEXT) return undefined
  const name = String(attributes['db.query.summary'])
  // As an option of startSpan, the SDK would check and copy the attributes twice more.
  return tracer.startSpan(name, { kind: SpanKind.CLIENT }, parent).setAttributes(attributes)
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

/**
 * Follows the semantic conventions for PostgreSQL. The text has placeholders, not values. By the conventions, what is read
 * from the text belongs into the summary only, not into `db.operation.name` and `db.collection.name`.
 */
function attributesOf(statement: BuiltStatement<unknown>): Attributes {
  const { sql: text } = statement.toSQL()
  const operation = /^\w+/.exec(text)?.[0].toUpperCase() ?? ''
  const collection = /\b(?:from|into|update) "(\w+)"/.exec(text)?.[1] ?? ''
  return {
    'db.system.name': 'postgresql',
    'db.query.summary': `${operation} ${collection}`,
    'db.query.text': text
  }
}
