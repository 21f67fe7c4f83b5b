import fc from 'fast-check'

/** Breaks one thing in a request, or leaves it unchanged. */
type Mutation = (request: string) => string

const LINES = [
  'Content-Length: 0',
  'Content-Length: 5',
  'Content-Length: +5',
  'Content-Length: -1',
  'Content-Length: 5, 5',
  'Content-Length: 0x5',
  'Content-Length: 5 5',
  'Content-Length:',
  'Content-Length: 18446744073709551617',
  'Content_Length: 5',
  'Content-Length : 5',
  'Transfer-Encoding: chunked',
  'Transfer-Encoding: identity',
  'Transfer-Encoding: chunked, identity',
  'Transfer-Encoding: gzip, chunked',
  'Transfer-Encoding: xchunked',
  'Transfer-Encoding: "chunked"',
  'Transfer-Encoding : chunked',
  ' Transfer-Encoding: chunked',
  'Transfer-Encoding:\x0bchunked',
  'Transfer-Encoding:\n chunked',
  'Transfer-Encoding\0: chunked',
  'X: x\nTransfer-Encoding: chunked',
  'Host: other',
  'Host:',
  'Connection: keep-alive',
  'Connection: close, Content-Length',
  'Connection: upgrade',
  'Upgrade: h2c',
  'Upgrade: websocket',
  'Expect: 100-continue',
  'Authorization: Bearer garbage',
  'Authorization:',
  'X-Folded: a\r\n b',
  'X-Nul: a\0b',
  'X-Bare: a\rb',
  'X-Bare: a\nb',
  ': no name',
  'no colon',
  'X Y: z',
  'X-High: \xff\xfe',
  `X-Large: ${'a'.repeat(17_000)}`,
  `X-${'a'.repeat(5_000)}: x`,
  'Trailer: Content-Length',
  'Proxy-Connection: keep-alive',
  'HTTP2-Settings: AAMAAABkAAQAAP__'
]
const BYTES = [
  '\0',
  '\n',
  '\r',
  '\r\n',
  '\r\n\r\n',
  ' ',
  '\t',
  ':',
  ';',
  ',',
  '\x0b',
  '\x7f',
  '\xff',
  '0\r\n\r\n',
  'GET / HTTP/1.1\r\n\r\n'
]
const NUMBERS = [
  '-1',
  '+5',
  '0x10',
  '1e3',
  '99999999999999999999',
  'ffffffffffffffff',
  '0',
  '00000000000000000005',
  '5 ',
  ' 5',
  '5;a=b',
  `5;${'a'.repeat(20_000)}`,
  '',
  'g',
  '5\n',
  '5_0'
]
const TARGETS = [
  'http://other/api/alice/tasks',
  'https://127.0.0.1/api/alice/tasks',
  'HTTP://api/api/alice/tasks',
  '//other/api/alice/tasks',
  'other:80',
  '*',
  '',
  '/api/alice/tasks#x',
  '/api/alice/tasks HTTP/1.1\r\nX: y',
  '/api/al ice/tasks',
  '/api/alice\ttasks',
  '/api/\xff/tasks',
  '/api/alice/../alice/tasks',
  '\\api\\alice\\tasks',
  `/${'a'.repeat(17_000)}`
]
const VERSIONS = [
  'HTTP/1.0',
  'HTTP/0.9',
  'HTTP/2.0',
  'HTTP/1.2',
  'HTTP/11',
  'http/1.1',
  'HTTP/1.1 ',
  '',
  'RTSP/1.0',
  'HTTP/1.1\n'
]
const METHODS = ['get', 'GET ', ' GET', 'GE T', 'PRI', 'CONNECT', 'BREW', '\0GET', 'G'.repeat(5_000)]

/** Replaces the nth match of a pattern. */
const nth =
  (pattern: RegExp, n: number, make: (found: string) => string): Mutation =>
  (request) => {
    const found = [...request.matchAll(pattern)]
    const match = found[n % Math.max(1, found.length)]
    if (match === undefined) return request
    return request.slice(0, match.index) + make(match[0]) + request.slice(match.index + match[0].length)
  }

const n = fc.nat(200)
const at = fc.nat(100_000)

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  at.map(
    (place): Mutation =>
      (request) =>
        request.slice(0, place % (request.length + 1))
  ),
  fc.tuple(at, n).map(
    ([place, length]): Mutation =>
      (request) => {
        const from = place % (request.length + 1)
        return request.slice(0, from) + request.slice(from + length)
      }
  ),
  fc.tuple(at, fc.constantFrom(...BYTES)).map(
    ([place, bytes]): Mutation =>
      (request) => {
        const from = place % (request.length + 1)
        return request.slice(0, from) + bytes + request.slice(from)
      }
  ),
  fc.tuple(n, fc.constantFrom(...LINES)).map(([which, line]) => nth(/\r\n/g, which, () => `\r\n${line}\r\n`)),
  n.map((which) => nth(/[^\r\n]*\r\n/g, which, (line) => line + line)),
  n.map((which) => nth(/[^\r\n]*\r\n/g, which, () => '')),
  fc
    .tuple(n, fc.constantFrom('\n', '\r', '', '\n\r', '\r\r\n', '\0\r\n', ' \r\n'))
    .map(([which, end]) => nth(/\r\n/g, which, () => end)),
  fc
    .tuple(n, fc.constantFrom(...NUMBERS))
    .map(([which, number]) => nth(/(?<=Length: )\d+|(?<=\r\n)[0-9a-f]+(?=\r\n)/g, which, () => number)),
  fc
    .tuple(n, fc.constantFrom(...TARGETS))
    .map(([which, target]) => nth(/(?<=^|[A-Z]) \S+ (?=HTTP)/g, which, () => ` ${target} `)),
  fc
    .tuple(n, fc.constantFrom(...VERSIONS))
    .map(([which, version]) => nth(/HTTP\/1\.1/g, which, () => version)),
  fc
    .tuple(n, fc.constantFrom(...METHODS))
    .map(([which, method]) => nth(/(GET|POST)(?= \S+ HTTP)/g, which, () => method)),
  fc
    .tuple(n, fc.constantFrom(':', ' :', '\t: ', ': \t', '='))
    .map(([which, colon]) => nth(/: /g, which, () => colon)),
  fc.string({ unit: 'binary-ascii', maxLength: 60 }).map(
    (garbage): Mutation =>
      (request) =>
        request + garbage
  )
)

/** Breaks one to three things. */
export const mutations: fc.Arbitrary<Mutation> = fc
  .array(mutation, { minLength: 1, maxLength: 3, size: 'max' })
  .map(
    (all): Mutation =>
      (request) =>
        all.reduce((text, mutate) => mutate(text), request)
  )
