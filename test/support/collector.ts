import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { gunzipSync } from 'node:zlib'
import protobuf from 'protobufjs'
import type { Test } from './tap.js'

/** The parts of OTLP's messages that tests use, with the field numbers of opentelemetry-proto 1.x. */
const { root } = protobuf.parse(
  `syntax = "proto3";
  message ExportTraceServiceRequest { repeated ResourceSpans resource_spans = 1; }
  message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
  message Resource { repeated KeyValue attributes = 1; }
  message ScopeSpans { Scope scope = 1; repeated Span spans = 2; }
  message Scope { string name = 1; }
  message Span {
    bytes trace_id = 1; bytes span_id = 2; bytes parent_span_id = 4; string name = 5; int32 kind = 6;
    fixed64 start_time_unix_nano = 7; fixed64 end_time_unix_nano = 8;
    repeated KeyValue attributes = 9; repeated Event events = 11; Status status = 15;
  }
  message Event { string name = 2; repeated KeyValue attributes = 3; }
  message Status { string message = 2; int32 code = 3; }
  message KeyValue { string key = 1; AnyValue value = 2; }
  message AnyValue { oneof value { string string_value = 1; bool bool_value = 2; int64 int_value = 3; double double_value = 4; } }`
)
const Request = root.lookupType('ExportTraceServiceRequest')

type Value = string | number | boolean

interface KeyValue {
  key: string
  value: Record<string, Value>
}

interface RawSpan {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  kind: number
  endTimeUnixNano: number
  attributes?: KeyValue[]
  events?: unknown[]
  status?: { code?: number; message?: string }
}

interface RawRequest {
  resourceSpans?: { resource: { attributes: KeyValue[] }; scopeSpans: { spans: RawSpan[] }[] }[]
}

export interface Span {
  /** In hex, as the two ids that follow. */
  trace: string
  id: string
  /** '' for a root. */
  parent: string
  name: string
  /** 1 internal, 2 server, 3 client. */
  kind: number
  /** Nanoseconds since 1970, rounded to 256. */
  endedAt: number
  attributes: Record<string, Value>
  events: unknown[]
  /** 0 unset, 1 ok, 2 error. */
  status: number
  statusMessage: string
}

export interface Collector {
  /** For `OTEL_EXPORTER_OTLP_ENDPOINT`. */
  url: string
  /** Every span received so far. */
  spans: Span[]
  /** The attributes of the last sender's resource. */
  resource: Record<string, Value>
  /** How it answers; 200 unless a test says otherwise. */
  answer: number | 'never'
  requests: number
}

const hex = (base64 = '') => Buffer.from(base64, 'base64').toString('hex')
const valuesOf = (attributes: KeyValue[] = []) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0] as Value]))

/** Receives traces over OTLP/HTTP, and keeps them. It ends with the test. */
export async function startCollector(t: Pick<Test, 'teardown'>): Promise<Collector> {
  const server = createServer(async (request, response) => {
    collector.requests++
    const sent = await buffer(request)
    if (collector.answer === 'never') return
    if (request.url !== '/v1/traces' || request.headers['content-type'] !== 'application/x-protobuf') {
      return response.writeHead(415).end()
    }
    if (collector.answer === 200) {
      const message = Request.decode(request.headers['content-encoding'] === 'gzip' ? gunzipSync(sent) : sent)
      const { resourceSpans = [] } = Request.toObject(message, { bytes: String, longs: Number }) as RawRequest
      for (const { resource, scopeSpans } of resourceSpans) {
        collector.resource = valuesOf(resource.attributes)
        for (const span of scopeSpans.flatMap(({ spans }) => spans)) collector.spans.push(readable(span))
      }
    }
    return response.writeHead(collector.answer, { 'Content-Type': 'application/x-protobuf' }).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const collector: Collector = { url, spans: [], resource: {}, answer: 200, requests: 0 }
  return collector
}

const readable = ({
  traceId,
  spanId,
  parentSpanId,
  name,
  kind,
  endTimeUnixNano,
  attributes,
  events,
  status
}: RawSpan): Span => ({
  trace: hex(traceId),
  id: hex(spanId),
  parent: hex(parentSpanId),
  name,
  kind,
  endedAt: endTimeUnixNano,
  attributes: valuesOf(attributes),
  events: events ?? [],
  status: status?.code ?? 0,
  statusMessage: status?.message ?? ''
})
