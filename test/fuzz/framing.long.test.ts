import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import { type Answer, rowsOf, sign, startApp } from '../support/api.js'
import t from '../support/tap.js'
import { mutations } from './broken-framing.js'
import { bytesOf } from './sent.js'
import { AGAIN, REQUESTS, SEED } from './settings.js'
import { readStrictly } from './strict-http.js'
import { converse, parseAnswers, Wire } from './wire.js'

/** Number of open connections. A request that does not end takes as long as the service's timeout. */
const AT_ONCE = 200
const PATH = '/api/alice/tasks'

const lines = (...all: string[]) => `${all.join('\r\n')}\r\n\r\n`
const withLength =
  (...head: string[]) =>
  (body: string) =>
    lines(...head, 'Content-Type: application/json', `Content-Length: ${Buffer.byteLength(body)}`) + body
const latin1 = (text: string) => Buffer.from(text, 'latin1')

/**
 * Sent after each request, to end the connection. It needs no token. It is sent twice, because a body may absorb the
 * first.
 */
const END =
  lines(`GET ${PATH}?end HTTP/1.1`, 'Host: api') +
  lines(`GET ${PATH}?end HTTP/1.1`, 'Host: api', 'Connection: close')

t.test('broken framing', async (t) => {
  t.comment(AGAIN)
  // A body may have absorbed the requests that end the connection. Then the service closes it soon.
  const app = await startApp(t, 'postgres', { KEEP_ALIVE_SECONDS: '2' })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const authorization = `Authorization: Bearer ${await sign({ sub: 'alice' })}`
  const plain = bytesOf({
    method: 'GET',
    target: PATH,
    headers: [authorization.split(': ') as [string, string]]
  })

  const post = (title: string, ...headers: string[]) =>
    withLength(`POST ${PATH} HTTP/1.1`, 'Host: api', ...headers)(JSON.stringify({ title }))
  const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`
  const titles = async () => new Set((await rowsOf(app)).map(({ title }) => title))
  const ask = async (request: string) => parseAnswers(await converse(port, latin1(request)))

  t.test('a request inside a body is never answered', async (t) => {
    /** The request that an attacker wants to smuggle. */
    const inner = post('smuggled', authorization, 'Connection: close')
    const head = [`POST ${PATH} HTTP/1.1`, 'Host: api', authorization, 'Content-Type: application/json']
    const length = `Content-Length: ${inner.length}`
    const chunked = 'Transfer-Encoding: chunked'
    const inChunks = `${chunk(inner)}0\r\n\r\n`

    t.test('with correct framing it is a body, and the next request is answered', async (t) => {
      const statuses = async (request: string) =>
        (await ask(request + END)).answers.map(({ status }) => status)
      t.strictSame(await statuses(lines(...head, length) + inner), [400])
      t.strictSame(await statuses(lines(...head, chunked) + inChunks), [400])
      t.strictSame(
        await statuses(post('first', authorization) + post('second', authorization)),
        [201, 201, 401, 401]
      )
      t.strictSame(await titles(), new Set(['first', 'second']))
    })

    const early = `0\r\n\r\n${inner}`
    const cases: Record<string, string> = {
      'a length and chunks, the chunks end first': lines(...head, length, chunked) + early,
      'chunks and a length, the chunks end first': lines(...head, chunked, length) + early,
      'a length of 0 and chunks': lines(...head, 'Content-Length: 0', chunked) + inChunks,
      'two lengths, the first shorter': lines(...head, 'Content-Length: 0', length) + inner,
      'two lengths, the second shorter': lines(...head, length, 'Content-Length: 0') + inner,
      'two lengths in one field': lines(...head, `Content-Length: 0, ${inner.length}`) + inner,
      'the same length twice': lines(...head, 'Content-Length: 0', 'Content-Length: 0') + inner,
      ...Object.fromEntries(
        [
          '+0',
          '-0',
          '-1',
          '0x0',
          '0 0',
          '0;',
          '0,',
          '1e1',
          '٠',
          '0\t0',
          '0\x0b',
          '00000000000000000000000000000001x',
          '18446744073709551616',
          '18446744073709551615'
        ].map((value) => [
          `the length ${JSON.stringify(value)}`,
          lines(...head, `Content-Length: ${Buffer.from(value).toString('latin1')}`) + inner
        ])
      ),
      ...Object.fromEntries(
        [
          'Transfer-Encoding: identity',
          'Transfer-Encoding: chunked, identity',
          'Transfer-Encoding: identity, chunked, identity',
          'Transfer-Encoding: xchunked',
          'Transfer-Encoding: chunkedx',
          'Transfer-Encoding: "chunked"',
          'Transfer-Encoding: chunked;q=0',
          'Transfer-Encoding: \x0bchunked',
          'Transfer-Encoding: chunked\x0b',
          'Transfer-Encoding:\0chunked',
          'Transfer-Encoding : chunked',
          'Transfer-Encoding\t: chunked',
          'Transfer-Encoding\0: chunked',
          'Transfer-Encoding:\n chunked',
          'Transfer-Encoding:\r\n chunked',
          ' Transfer-Encoding: chunked',
          'X: y\nTransfer-Encoding: chunked',
          'X: y\rTransfer-Encoding: chunked',
          'X: y\r\r\nTransfer-Encoding: chunked',
          'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity'
        ].map((line) => [
          `a length and ${JSON.stringify(line)}`,
          lines(...head, 'Content-Length: 5', line) + early
        ])
      ),
      'chunks in HTTP/1.0 with a length': (lines(...head, 'Content-Length: 5', chunked) + early).replace(
        'HTTP/1.1',
        'HTTP/1.0'
      ),
      'lines that end with LF only': lines(...head, 'Content-Length: 0').replaceAll('\r\n', '\n') + inner,
      'a head that ends with LF only': `${[...head, 'Content-Length: 5'].join('\r\n')}\n\n${inner}`,
      'a head that ends with CR only': `${[...head, 'Content-Length: 5'].join('\r\n')}\r\r${inner}`,
      ...Object.fromEntries(
        [
          '-1',
          '+0',
          '0x0',
          ' 0',
          '0 x',
          'g',
          '',
          'fffffffffffffffff',
          '-0',
          '0_0',
          '0\n',
          '0\r',
          '00000000000000000g'
        ].map((size) => [
          `the chunk size ${JSON.stringify(size)}`,
          `${lines(...head, chunked)}${size}\r\n\r\n${inner}`
        ])
      ),
      'a chunk that ends with LF only': `${lines(...head, chunked)}1\r\n{\n0\r\n\r\n${inner}`,
      'a chunk that ends nowhere': `${lines(...head, chunked)}1\r\n{}0\r\n\r\n${inner}`,
      'a chunk size that ends with LF only': `${lines(...head, chunked)}1\n{\r\n0\r\n\r\n${inner}`,
      'a chunk extension with LF': `${lines(...head, chunked)}1;a\nb\r\n{\r\n0\r\n\r\n${inner}`,
      'a chunk extension of 20 KB': `${lines(...head, chunked)}1;${'a'.repeat(20_000)}\r\n{\r\n0\r\n\r\n${inner}`,
      'a last chunk that ends with LF only': `${lines(...head, chunked)}0\n\n${inner}`,
      'a trailer without a colon': `${lines(...head, chunked)}0\r\nnot a trailer\r\n\r\n${inner}`
    }
    for (const [name, request] of Object.entries(cases)) {
      t.test(name, async (t) => {
        const before = await titles()
        const { answers, rest } = await ask(request)
        const [first] = answers
        t.equal(answers.length, 1, 'one answer, and the connection ends')
        t.ok(first && first.status >= 400 && first.status < 500, `${first?.status}`)
        t.equal(rest.length, 0)
        t.strictSame(await titles(), before)
      })
    }
  })

  const COUNT = Math.trunc(REQUESTS / 5)
  t.test(`${COUNT} broken requests get their 4xx, or the right answer`, async (t) => {
    const cases = fc.sample(fc.record({ base: fc.nat(5), anonymous: fc.boolean(), mutate: mutations }), {
      seed: SEED,
      numRuns: COUNT
    })
    const chunked = (...texts: string[]) => `${texts.map(chunk).join('')}0\r\n\r\n`

    /** The bytes of a case. The titles of its tasks contain the case's index. */
    const bytesOfCase = (index: number): Buffer => {
      const { base, anonymous, mutate } = cases[index] as (typeof cases)[number]
      const token = anonymous ? [] : [authorization]
      const head = ['Host: api', ...token]
      const json = [`POST ${PATH} HTTP/1.1`, ...head, 'Content-Type: application/json']
      const inner = post(`inner-${index}`, ...token)
      const bases = [
        lines(`GET ${PATH} HTTP/1.1`, ...head),
        post(`title-${index}`, ...token),
        lines(...json, 'Transfer-Encoding: chunked') + chunked('{"title":', `"chunked-${index}"}`),
        withLength(`POST ${PATH} HTTP/1.1`, ...head)(inner),
        lines(...json, 'Transfer-Encoding: chunked') + chunked(inner),
        post(`one-${index}`, ...token) + post(`two-${index}`, ...token)
      ]
      return latin1(mutate(bases[base] as string) + END)
    }

    const allowed = await titles()
    const entitled = (bytes: Buffer) =>
      readStrictly(bytes).filter(({ headers }) =>
        headers.some(
          ([name, value]) => name === 'authorization' && `Authorization: ${value}` === authorization
        )
      )
    const wrongOf = (bytes: Buffer, answers: Answer[], rest: Buffer): string | undefined => {
      const due = entitled(bytes)
      for (const { body } of due) allowed.add(titleIn(body))
      const successes = answers.filter(({ status }) => status < 400)
      if (rest.length > 0) return 'something after the last answer'
      if (successes.length > due.length) return `${successes.length} successes where ${due.length} were due`
      if (answers.some(({ status }) => status >= 500 || (status >= 300 && status < 400)))
        return 'a 3xx or 5xx'
      if (answers.some(isNoProblem)) return 'an error in another form'
      // Node closes the connection on CONNECT without an answer.
      return answers.length === 0 && !bytes.includes('CONNECT') ? 'no answer' : undefined
    }

    const failures: string[] = []
    const seen = new Map<number, number>()
    let next = 0
    const work = async () => {
      for (let index = next++; index < COUNT && failures.length === 0; index = next++) {
        const bytes = bytesOfCase(index)
        try {
          const { answers, rest } = parseAnswers(await converse(port, bytes))
          for (const { status } of answers) seen.set(status, (seen.get(status) ?? 0) + 1)
          const wrong = wrongOf(bytes, answers, rest)
          if (wrong) failures.push(`${index}: ${wrong}, answered ${JSON.stringify(answers)}`)
          // On a new connection, because the server may have closed an idle one meanwhile.
          const wire = new Wire(port)
          const { status } = await wire.ask(plain, false)
          wire.close()
          if (status !== 200) failures.push(`${index}: ${status} for a plain request right after`)
        } catch (error) {
          failures.push(`${index}: ${error}`)
        }
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, work))
    for (const title of await titles()) {
      if (!allowed.has(title)) failures.push(`${title.split('-')[1]}: ${title} was created, and was not due`)
    }

    t.comment([...seen].map(([status, count]) => `${status}: ${count}`).join(', '))
    for (const failure of failures) {
      t.comment(JSON.stringify(bytesOfCase(Number.parseInt(failure, 10)).toString('latin1')))
      t.fail(`request ${failure}; again: ${AGAIN}`)
    }
    t.ok(
      // The short form has too few requests to include headers that are too large.
      [200, 201, 400, 401, ...(REQUESTS < 1_000 ? [] : [431])].every((status) => seen.has(status)),
      'all kinds of answers were seen'
    )
  })
})

function titleIn(body: Buffer): string {
  try {
    return JSON.parse(body.toString()).title
  } catch {
    return ''
  }
}

const isNoProblem = ({ status, headers, json }: Answer) =>
  status >= 400 &&
  (!headers['content-type']?.startsWith('application/problem+json') ||
    // An answer to HEAD has no body.
    (json !== undefined && json.status !== status))
