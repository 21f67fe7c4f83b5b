import type { FastifyInstance } from 'fastify'
import { type Client, expectProblem, rowsOf } from './api.js'
import type { Test } from './tap.js'

export const JSON_TYPE = { 'content-type': 'application/json' }

/** An id that no task has. */
export const UNKNOWN_ID = '01890000-0000-7000-8000-000000000000'

/** Subtests of ids that every operation on one task refuses. */
export function refusesUnknownIds(
  t: Test,
  alice: Client,
  method: string,
  below: string,
  body?: object
): void {
  for (const [what, id] of [
    ['an id that no task has', UNKNOWN_ID],
    ['a value that is no UUID', '1'],
    ['a URN of a UUID', `urn:uuid:${UNKNOWN_ID}`],
    ['a UUID in braces', `{${UNKNOWN_ID}}`],
    ['a UUID without dashes', UNKNOWN_ID.replaceAll('-', '')],
    ['a UUID with a line feed', `${UNKNOWN_ID}\n`]
  ] as const) {
    t.test(`404 for ${what}`, async (t) => {
      expectProblem(t, await alice(method, `/${encodeURIComponent(id)}${below}`, body), 'not_found')
    })
  }
}

/** Subtests of bodies that every operation with a body refuses. */
export function refusesBrokenBodies(
  t: Test,
  app: FastifyInstance,
  alice: Client,
  method: string,
  path: string
): void {
  const json = (text: string) => Buffer.from(text)
  for (const [status, code, what, body, headers] of [
    [400, 'bad_request', 'JSON that ends early', '{"title": "a"', JSON_TYPE],
    [400, 'bad_request', 'a body of white space only', '  ', JSON_TYPE],
    [400, 'bad_request', 'two JSON values', '{} {}', JSON_TYPE],
    [
      400,
      'bad_request',
      'invalid UTF-8',
      Buffer.concat([json('{"title": "'), Buffer.from([0xff]), json('"}')]),
      JSON_TYPE
    ],
    [
      400,
      'bad_request',
      'a surrogate encoded in UTF-8',
      Buffer.concat([json('{"title": "'), Buffer.from([0xed, 0xa0, 0x80]), json('"}')]),
      JSON_TYPE
    ],
    [413, 'body_too_large', 'a body of more than 64 KiB', Buffer.alloc(65_537, 0x20), JSON_TYPE],
    [
      415,
      'unsupported_media_type',
      'a form',
      'title=a',
      { 'content-type': 'application/x-www-form-urlencoded' }
    ],
    [415, 'unsupported_media_type', 'plain text', '{"title":"a"}', { 'content-type': 'text/plain' }],
    [
      415,
      'unsupported_media_type',
      'what only looks like JSON',
      '{"title":"a"}',
      { 'content-type': 'application/jsonp' }
    ],
    [
      415,
      'unsupported_media_type',
      'a Content-Type that is none',
      '{"title":"a"}',
      { 'content-type': 'json' }
    ],
    [415, 'unsupported_media_type', 'no Content-Type', '{"title":"a"}', {}]
  ] as const) {
    t.test(`${status} for ${what}`, async (t) => {
      const before = await rowsOf(app)
      expectProblem(t, await alice(method, path, body, headers), code)
      t.strictSame(await rowsOf(app), before)
    })
  }
}
