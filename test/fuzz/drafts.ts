import { METHODS } from 'node:http'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import type { Document, Operation, Validate } from './document.js'
import { Members, valuesOf } from './values.js'

/** The id of a request, which its answer must return. */
export const REQUEST_ID = 'mine'

/** The user of the token. The last ones are invalid tokens. */
export type Caller = 'owner' | 'stranger' | 'none' | 'garbage' | 'expired' | 'forged'

/** A version of the task in the path, relative to its state when the request is sent. */
export type TagRef = 'current' | 'weak current' | 'encoded current' | 'next' | 'previous' | 'other'

const TAG_REFS: TagRef[] = ['current', 'weak current', 'encoded current', 'next', 'previous', 'other']

export interface Condition {
  header: 'If-Match' | 'If-None-Match'
  /** Entity tags; `*`; or a text that is neither. */
  value: TagRef[] | '*' | { text: string }
}

export interface Body {
  bytes: Buffer
  type: string | undefined
  /** The sizes of its chunks; undefined sends a Content-Length. */
  chunks: number[] | undefined
}

/**
 * A request with relative users, tasks and versions. They become concrete when it is sent, so one sequence of drafts
 * can go to two services with different ids.
 */
export interface Draft {
  method: string
  /** A path of the document, or an unknown one. */
  path: { template: string } | { text: string; undecodable: boolean }
  user: number
  caller: Caller
  /** One of the user's own tasks, in lower or upper case; another user's task; or any text. */
  task: { own: number; upper: boolean } | { foreign: number } | { text: string }
  /** True percent-encodes every byte of the path, and appends a slash. */
  encodeAll: boolean
  slash: boolean
  query: [name: string, value: string][]
  condition: Condition | undefined
  key: string | undefined
  noise: [name: string, value: string][]
  body: Body | undefined
}

/** @param share percentage of requests that have it */
const sometimes = <T>(arbitrary: fc.Arbitrary<T>, share: number): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: 100 - share, arbitrary: fc.constant(undefined) }, { weight: share, arbitrary })

const JSON_TYPES = ['application/json', 'application/json; charset=utf-8', 'APPLICATION/JSON;charset="UTF-8"']
const OTHER_TYPES = [
  undefined,
  '',
  'text/plain',
  'json',
  'application/jsonp',
  'application/x-www-form-urlencoded',
  'multipart/form-data; boundary=x',
  'application/merge-patch+json',
  '*/*'
]

/** Content types of an empty body. */
const EMPTY_TYPES = [undefined, ...JSON_TYPES, 'text/plain']

/** Header fields without effect, except for a content coding of a body. */
const NOISE: [string, string][] = [
  ['Accept', 'text/html'],
  ['Accept', 'application/xml;q=0.1'],
  ['Accept-Encoding', 'gzip, br'],
  ['Content-Encoding', 'gzip'],
  ['Content-Encoding', 'identity'],
  ['Content-Language', 'de'],
  ['Connection', 'close'],
  ['Cookie', 'token=x; sub=mallory'],
  ['Expect', '100-continue'],
  ['Expect', 'the-unexpected'],
  ['If-Modified-Since', 'Sat, 29 Oct 2044 19:43:31 GMT'],
  ['If-Unmodified-Since', 'Sat, 29 Oct 1994 19:43:31 GMT'],
  ['Origin', 'null'],
  ['Prefer', 'return=minimal'],
  ['Range', 'bytes=0-1'],
  ['TE', 'trailers'],
  ['Upgrade', 'websocket'],
  ['X-Forwarded-For', '127.0.0.1'],
  ['X-Forwarded-User', 'mallory'],
  ['X-HTTP-Method-Override', 'DELETE'],
  ['X-Original-URL', '/api/mallory/tasks'],
  ['X-Request-Id', REQUEST_ID],
  ['X-Large', 'a'.repeat(1_000)],
  ['__proto__', 'x'],
  ['constructor', 'x']
]

const NOWHERE = [
  '/',
  '/api',
  '/api/',
  '/api/x',
  '/API/x/tasks',
  '/metrics',
  '/openapi.json',
  '/*',
  '/.env',
  '//',
  '/api/x/tasks/y/z',
  '/api/x/tasks//complete/y'
]
const UNDECODABLE = ['/%', '/api/%zz/tasks', '/api/x/tasks/%ff', '/api/%c3%28/tasks', '/%ed%a0%80']

const wellFormed = (text: string) => text.isWellFormed()
const someText = fc.oneof(
  fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }).filter(wellFormed),
  fc.constantFrom(
    '1',
    'complete',
    'null',
    '__proto__',
    "' or 1=1 --",
    '{}',
    '*',
    ':taskId',
    '..%2f',
    '%00',
    '0'.repeat(500)
  )
)

const task: fc.Arbitrary<Draft['task']> = fc.oneof(
  { weight: 14, arbitrary: fc.record({ own: fc.nat(1000), upper: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ foreign: fc.nat(1000) }) },
  { weight: 1, arbitrary: fc.record({ text: fc.uuid() }) },
  { weight: 1, arbitrary: fc.record({ text: someText.filter((text) => !/^\.{0,2}$/.test(text)) }) }
)

const caller: fc.Arbitrary<Caller> = fc.oneof(
  { weight: 20, arbitrary: fc.constant<Caller>('owner') },
  { weight: 1, arbitrary: fc.constant<Caller>('stranger') },
  { weight: 1, arbitrary: fc.constantFrom<Caller>('none', 'garbage', 'expired', 'forged') }
)

/** Valid characters of a header field, without white space around it. */
const fieldText = fc
  .string({
    unit: fc
      .integer({ min: 0x20, max: 0xff })
      .filter((code) => code !== 0x7f)
      .map((code) => String.fromCharCode(code)),
    maxLength: 30
  })
  .map((text) => text.replace(/^[ \t]+|[ \t]+$/g, ''))

const NO_TAGS = ['', ',', '"', '"1', '1', 'W/1', 'w/"1"', '"1" "2"', '"1";', "'1'", '*,"1"', '"a b"', '"1",*']

const conditionOf = (header: Condition['header']): fc.Arbitrary<Condition> =>
  fc.record({
    header: fc.constant(header),
    value: fc.oneof(
      { weight: 6, arbitrary: fc.constant<TagRef[]>(['current']) },
      {
        weight: 4,
        arbitrary: fc.array(fc.constantFrom(...TAG_REFS), { minLength: 1, maxLength: 4 })
      },
      { weight: 1, arbitrary: fc.constant<'*'>('*') },
      { weight: 1, arbitrary: fc.record({ text: fc.constantFrom(...NO_TAGS) }) }
    )
  })

const chunks = sometimes(fc.array(fc.integer({ min: 1, max: 5_000 }), { minLength: 1, maxLength: 4 }), 25)

function bodyOf(text: fc.Arbitrary<string>): fc.Arbitrary<Body> {
  const bytes = fc.tuple(text, fc.nat(), fc.nat(99)).map(([json, at, way]) => {
    const whole = Buffer.from(json)
    const cut = at % (whole.length + 1)
    if (way < 84) return whole
    if (way < 86) return whole.subarray(0, cut)
    if (way < 88) return Buffer.concat([whole.subarray(0, cut), Buffer.from([0xff]), whole.subarray(cut)])
    if (way < 90) return Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), whole])
    if (way < 92) return Buffer.concat([whole, whole])
    if (way < 94) return Buffer.from(json, 'latin1')
    if (way < 96) return Buffer.from(json.padEnd(65_536 - (whole.length - json.length)))
    if (way < 98) return Buffer.from(json.padEnd(65_537 + (at % 5_000)))
    if (way < 99) return gzipSync(whole)
    return Buffer.from('['.repeat(at % 60_000))
  })
  const type = fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom<string | undefined>(...JSON_TYPES) },
    { weight: 1, arbitrary: fc.constantFrom(...OTHER_TYPES) }
  )
  return fc.oneof(
    { weight: 12, arbitrary: fc.record({ bytes, type, chunks }) },
    {
      weight: 1,
      arbitrary: fc.record({
        bytes: fc.constant(Buffer.alloc(0)),
        type: fc.constantFrom(...EMPTY_TYPES),
        chunks
      })
    }
  )
}

/** JSON with every non-ASCII character escaped, or with none. */
const toText = (value: unknown, ascii: boolean) => {
  const text = value instanceof Members ? value.toText() : JSON.stringify(value)
  return ascii
    ? text.replace(/[^\x00-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    : text
}

/** Any request. Most are valid or nearly valid, and made from the document's description of an operation. */
export function draftsOf(document: Document, isRight: Validate): fc.Arbitrary<Draft> {
  const values = valuesOf(document, isRight)
  const anyBody = bodyOf(fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.stringify(value)))

  function draftOf(
    template: string,
    method: string,
    { parameters = [], requestBody }: Operation
  ): fc.Arbitrary<Draft> {
    const named = (where: string, name: string) =>
      parameters.find((one) => one.in === where && one.name === name)
    const ifMatch = named('header', 'If-Match')
    const ifNoneMatch = named('header', 'If-None-Match')
    const key = named('header', 'Idempotency-Key')
    const content = requestBody?.content['application/json']
    const queries = parameters.filter((one) => one.in === 'query')

    const someCondition = conditionOf(ifMatch ? 'If-Match' : 'If-None-Match')
    // Also sent to operations that ignore it.
    const strayCondition = fc
      .constantFrom<Condition['header']>('If-Match', 'If-None-Match')
      .chain(conditionOf)
    const body = content
      ? bodyOf(
          fc.tuple(values.any(content.schema), fc.boolean()).map(([value, ascii]) => toText(value, ascii))
        )
      : anyBody
    return fc.record({
      method: fc.oneof(
        { weight: 18, arbitrary: fc.constant(method) },
        {
          weight: 1,
          arbitrary: fc.constantFrom('HEAD', ...METHODS.filter((one) => one !== 'CONNECT'))
        }
      ),
      path: fc.oneof(
        { weight: 40, arbitrary: fc.constant<Draft['path']>({ template }) },
        { weight: 1, arbitrary: fc.constantFrom(...NOWHERE).map((text) => ({ text, undecodable: false })) },
        { weight: 1, arbitrary: fc.constantFrom(...UNDECODABLE).map((text) => ({ text, undecodable: true })) }
      ),
      user: fc.nat(1000),
      caller,
      task,
      encodeAll: fc.nat(9).map((n) => n === 0),
      slash: fc.nat(9).map((n) => n === 0),
      query: fc
        .tuple(
          ...queries.map(({ name, schema }) =>
            fc.array(
              fc.tuple(
                fc.constant(name),
                fc.oneof(
                  { weight: 8, arbitrary: values.right(schema) as fc.Arbitrary<string> },
                  { weight: 1, arbitrary: someText },
                  { weight: 1, arbitrary: fc.constant('') }
                )
              ),
              { maxLength: 2, size: 'xsmall' }
            )
          ),
          fc.oneof(
            { weight: 5, arbitrary: fc.constant([]) },
            {
              weight: 1,
              arbitrary: fc.array(
                fc.tuple(fc.constantFrom('x', 'Status', 'status[]', '__proto__', 'userId'), someText),
                { maxLength: 3 }
              )
            }
          )
        )
        .map((all) => all.flat() as Draft['query']),
      condition: ifMatch || ifNoneMatch ? sometimes(someCondition, 45) : sometimes(strayCondition, 8),
      key: sometimes(
        key
          ? fc.oneof(
              // Only a few, so that they are used again.
              { weight: 16, arbitrary: fc.nat(30).map((n) => `key-${n}`) },
              { weight: 1, arbitrary: values.right(key.schema) as fc.Arbitrary<string> },
              { weight: 2, arbitrary: fc.oneof(fieldText, fc.constantFrom('', 'a b', 'a'.repeat(256))) }
            )
          : fc.constant('stray'),
        key ? 40 : 8
      ),
      noise: fc.oneof(
        { weight: 3, arbitrary: fc.constant<[string, string][]>([]) },
        {
          weight: 2,
          arbitrary: fc.uniqueArray(fc.constantFrom(...NOISE), { maxLength: 4, selector: ([name]) => name })
        }
      ),
      body: sometimes(body, requestBody?.required ? 95 : content ? 60 : 10)
    })
  }

  const drafts = Object.entries(document.paths).flatMap(([template, item]) =>
    Object.entries(item).map(([method, operation]) => ({
      // The other operations need existing tasks.
      weight: method === 'post' ? 3 : 1,
      arbitrary: draftOf(template, method.toUpperCase(), operation)
    }))
  )
  return fc.oneof(...drafts)
}
