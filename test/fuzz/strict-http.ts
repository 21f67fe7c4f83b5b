/** A request as it was sent. */
export interface StrictRequest {
  method: string
  target: string
  /** Names in lower case. */
  headers: [name: string, value: string][]
  body: Buffer
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const REQUEST_LINE = new RegExp(
  `^(${TOKEN}) +([\\x21-\\x7e]+) +(HTTP/(?:1\\.1|1\\.0|0\\.9|2\\.0)|RTSP/1\\.0)$`
)
const CRLF = Buffer.from('\r\n')
const FIELD = new RegExp(`^(${TOKEN}):[ \\t]*([\\t\\x20-\\x7e\\x80-\\xff]*)$`)

/**
 * Parses the complete requests at the start of these bytes, strictly by RFC 9112, so that the end of each is certain. If a
 * server answers more requests, another server may see other boundaries between them.
 *
 * Rules that do not concern the end are not checked, as in Node. These are the spaces around the target, the number of
 * Hosts, and versions that are treated as HTTP/1.0.
 */
export function readStrictly(bytes: Buffer): StrictRequest[] {
  const requests: StrictRequest[] = []
  let rest = bytes
  for (;;) {
    // Section 2.2: empty lines before a request are ignored.
    while (rest.subarray(0, 2).equals(CRLF)) rest = rest.subarray(2)
    const read = readOne(rest)
    if (read === undefined) return requests
    requests.push(read.request)
    if (read.last) return requests
    rest = rest.subarray(read.end)
  }
}

function readOne(bytes: Buffer): { request: StrictRequest; end: number; last: boolean } | undefined {
  const head = linesAt(bytes, 0)
  const [, method = '', target = '', version] = REQUEST_LINE.exec(head?.lines[0] ?? '') ?? []
  if (head === undefined || version === undefined) return undefined
  const modern = version === 'HTTP/1.1'
  const headers = fieldsOf(head.lines.slice(1))
  if (headers === undefined) return undefined
  const all = (name: string) => headers.filter(([one]) => one === name).map(([, value]) => value)

  const [length, ...moreLengths] = all('content-length')
  const codings = all('transfer-encoding')
  let body: { bytes: Buffer; end: number } | undefined
  if (codings.length > 0) {
    // Section 6.1: with a Content-Length too it is an error. Before HTTP/1.1 the connection must be closed after it.
    if (length !== undefined || !endsInChunks(codings)) return undefined
    body = chunksAt(bytes, head.end)
  } else if (moreLengths.length > 0 || !/^\d{1,9}$/.test(length ?? '0')) {
    return undefined
  } else {
    const end = head.end + Number(length ?? '0')
    body = end <= bytes.length ? { bytes: bytes.subarray(head.end, end), end } : undefined
  }
  if (body === undefined) {
    // The body of a GET has no meaning, so a server need not wait for its end. No request follows it.
    const request = { method, target, headers, body: Buffer.alloc(0) }
    return method === 'GET' ? { request, end: bytes.length, last: true } : undefined
  }
  const last = !modern || all('connection').some((value) => /\bclose\b/i.test(value))
  return { request: { method, target, headers, body: body.bytes }, end: body.end, last }
}

/** Section 6.3: the end of the body is known if "chunked" is the last coding, and occurs once. */
function endsInChunks(fields: string[]): boolean {
  const codings = fields
    .join()
    .split(',')
    .map((coding) => coding.trim().toLowerCase())
  return codings.indexOf('chunked') === codings.length - 1
}

/** The lines before an empty one. Each ends with CR and LF, and contains no CR, LF or NUL. */
function linesAt(bytes: Buffer, start: number): { lines: string[]; end: number } | undefined {
  const at = bytes.indexOf('\r\n\r\n', start)
  if (at < 0) return undefined
  const lines = bytes.subarray(start, at).toString('latin1').split('\r\n')
  return lines.some((line) => /[\r\n\0]/.test(line)) ? undefined : { lines, end: at + 4 }
}

function fieldsOf(lines: string[]): StrictRequest['headers'] | undefined {
  const fields: StrictRequest['headers'] = []
  for (const line of lines) {
    const [, name, value] = FIELD.exec(line) ?? []
    if (name === undefined || value === undefined) return undefined
    fields.push([name.toLowerCase(), value.trim()])
  }
  return fields
}

function chunksAt(bytes: Buffer, start: number): { bytes: Buffer; end: number } | undefined {
  const chunks: Buffer[] = []
  for (let at = start; ; ) {
    const lineEnd = bytes.indexOf('\r\n', at)
    const [, digits] =
      /^([0-9a-f]{1,8})(?:;[\t\x20-\x7e]*)?$/i.exec(
        bytes.subarray(at, Math.max(at, lineEnd)).toString('latin1')
      ) ?? []
    if (digits === undefined) return undefined
    const size = Number.parseInt(digits, 16)
    const dataEnd = lineEnd + 2 + size
    if (size === 0) {
      // Trailers, or none.
      const trailers = bytes.subarray(lineEnd + 2, lineEnd + 4).equals(CRLF)
        ? { lines: [], end: lineEnd + 4 }
        : linesAt(bytes, lineEnd + 2)
      return trailers && fieldsOf(trailers.lines)
        ? { bytes: Buffer.concat(chunks), end: trailers.end }
        : undefined
    }
    if (bytes.subarray(dataEnd, dataEnd + 2).toString('latin1') !== '\r\n') return undefined
    chunks.push(bytes.subarray(lineEnd + 2, dataEnd))
    at = dataEnd + 2
  }
}
