import { gzipSync } from 'node:zlib'
import { clientOf, expectProblem, rowsOf, startApp } from '../support/api.js'
import { JSON_TYPE } from '../support/refusals.js'
import t from '../support/tap.js'

t.test('a body with a content coding', async (t) => {
  const app = await startApp(t)
  const alice = await clientOf(app, 'alice')
  const { json: task } = await alice('POST', '', { title: 'a' })
  const body = '{"title":"b","completed":true}'

  t.test('is 415 with Accept-Encoding, for any coding, with or without a body', async (t) => {
    const before = await rowsOf(app)
    for (const [coding, bytes] of [
      ['gzip', gzipSync(body)],
      ['gzip', body],
      ['GZIP', body],
      ['br', body],
      ['deflate', body],
      ['zstd', body],
      ['aws-chunked', body],
      ['identity, gzip', body],
      ['gzip, gzip', body],
      ['utf-8', body]
    ] as const) {
      for (const [method, path] of [
        ['POST', ''],
        ['PATCH', `/${task.id}`],
        ['PUT', `/${task.id}`],
        ['PATCH', `/${task.id}/complete`]
      ] as const) {
        for (const type of [JSON_TYPE, { 'content-type': 'text/plain' }]) {
          const answer = await alice(method, path, bytes, { ...type, 'content-encoding': coding })
          expectProblem(t, answer, 'unsupported_media_type', `${coding} to ${method} ${path}`)
          t.equal(answer.headers['accept-encoding'], 'identity')
          t.equal(answer.json.detail, 'The request body must be sent without a Content-Encoding.')
        }
      }
    }
    t.strictSame(await rowsOf(app), before)
  })

  t.test('is read if the coding is identity', async (t) => {
    for (const coding of ['identity', 'Identity', '', ' ', 'identity, identity']) {
      const { status } = await alice('POST', '', body, { ...JSON_TYPE, 'content-encoding': coding })
      t.equal(status, 201, JSON.stringify(coding))
    }
  })

  t.test('is no body if it is empty', async (t) => {
    const { status } = await alice('PATCH', `/${task.id}/complete`, '', {
      ...JSON_TYPE,
      'content-encoding': 'gzip'
    })
    t.equal(status, 200)
  })

  t.test('a 415 for the media type has no Accept-Encoding', async (t) => {
    const answer = await alice('POST', '', body, { 'content-type': 'text/plain' })
    expectProblem(t, answer, 'unsupported_media_type')
    t.equal(answer.headers['accept-encoding'], undefined, 'RFC 9110, section 12.5.3')
    t.match(answer.json.detail, 'application/json')
  })
})
