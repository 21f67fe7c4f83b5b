import type { SchemaObject } from 'ajv'
import Ajv2020 from 'ajv/dist/2020.js'
import { sql } from 'drizzle-orm'
import type { FastifyRequest } from 'fastify'
import { STATUS_OF, Unavailable } from '../../plugins/errors/catalogue.js'
import {
  type Answer,
  addToNextApp,
  clientOf,
  expectProblem,
  onEachDatabase,
  sign,
  startApp
} from '../support/api.js'
import { KINDS } from '../support/databases.js'
import { until } from '../support/process.js'
import { JSON_TYPE, UNKNOWN_ID } from '../support/refusals.js'
import t from '../support/tap.js'

/** Texts that no answer and no log line may contain. */
const SECRET = 'correct horse battery staple'

const logger = () => {
  const lines: string[] = []
  return {
    lines,
    logStream: { write: (line: string) => void lines.push(line) },
    /** The log lines from a level on, as objects. 50 is error. */
    from: (level: number) => lines.map((line) => JSON.parse(line)).filter((line) => line.level >= level)
  }
}

const THROWN: Record<string, () => unknown> = {
  'an error': () => new Error(SECRET),
  'an error with a cause': () => new Error(SECRET, { cause: new Error(SECRET) }),
  'a bug': () => new TypeError(SECRET),
  'an error that claims a status': () => Object.assign(new Error(SECRET), { statusCode: 404 }),
  'an error that claims success': () => Object.assign(new Error(SECRET), { statusCode: 200 }),
  'an error of the database': () => Object.assign(new Error(SECRET), { code: '42P01', query: SECRET }),
  'an error of the system': () => Object.assign(new Error(SECRET), { code: 'ENOENT', path: SECRET }),
  'an object': () => ({ message: SECRET }),
  'a text': () => SECRET,
  'a number': () => 404,
  null: () => null,
  undefined: () => undefined
}

t.test('any thrown value becomes a 500 without details, and one line in the log', async (t) => {
  const log = logger()
  const thrown = ({ params }: FastifyRequest) => THROWN[(params as { kind: string }).kind]?.()
  addToNextApp((app) => {
    app.get('/api/rejects/:kind', async (request) => {
      throw thrown(request)
    })
    app.get('/api/throws/:kind', (request) => {
      throw thrown(request)
    })
    app.get(
      '/api/hook/:kind',
      { preHandler: async (request) => Promise.reject(thrown(request)) },
      () => 'unreached'
    )
  })
  const app = await startApp(t, 'postgres', { LOG_LEVEL: 'debug' }, log)
  const alice = await clientOf(app, 'alice')
  for (const how of ['rejects', 'throws', 'hook']) {
    for (const kind of Object.keys(THROWN)) {
      t.test(`${kind} (${how})`, async (t) => {
        log.lines.length = 0
        const url = `/api/${how}/${encodeURIComponent(kind)}`
        const answer = await alice('GET', url)
        expectProblem(t, answer, 'internal')
        t.notMatch(answer.text, SECRET)
        const told = log.from(50)
        t.match(told, [{ reqId: answer.headers['x-request-id'], msg: 'request failed' }])
        t.equal(told.length, 1)
        t.notOk(log.lines.some((line) => line.includes(url)))
      })
    }
  }

  t.test('the stack of an error is in the log', async (t) => {
    log.lines.length = 0
    await alice('GET', '/api/throws/a%20bug')
    t.match(log.from(50), [{ err: { type: 'TypeError', message: SECRET, stack: /errors\.test\.ts/ } }])
  })
})

for (const kind of KINDS) {
  t.test(`neither the client nor the log sees the values of a failed statement (${kind})`, async (t) => {
    const log = logger()
    const app = await startApp(t, kind, { LOG_LEVEL: 'trace' }, log)
    const user = 'user-of-the-path'
    const token = await sign({ sub: user })
    const client = await clientOf(app, user)
    await app.db.withAdminConnection(async (orm) => {
      await orm.execute(sql`alter table tasks rename to elsewhere`)
      await orm.execute(
        sql`create view tasks as select * from elsewhere where 1 / 0 = length(user_id) with check option`
      )
    })
    const body = { title: SECRET, description: SECRET }
    for (const [method, path, sent] of [
      ['GET', ''],
      ['POST', '', body],
      ['GET', `/${UNKNOWN_ID}`],
      ['PATCH', `/${UNKNOWN_ID}`, body],
      ['PUT', `/${UNKNOWN_ID}`, body],
      ['PATCH', `/${UNKNOWN_ID}/complete`],
      ['DELETE', `/${UNKNOWN_ID}`]
    ] as const) {
      log.lines.length = 0
      const answer = await client(method, `${path}?q=in-the-query`, sent, {
        authorization: `Bearer ${token}`
      })
      expectProblem(t, answer, 'internal', `${method} ${path}`)
      t.match(log.from(50), [
        {
          level: 50,
          reqId: answer.headers['x-request-id'],
          err: { code: '22012', stack: /division by zero\n +at / }
        }
      ])
      t.equal(log.from(50).length, 1)
      for (const line of [answer.text, ...log.lines]) {
        t.notMatch(line, /select |insert |update |delete |"tasks"\.|\$1/i, 'no SQL')
        for (const secret of [SECRET, user, token, UNKNOWN_ID, 'in-the-query', 'postgres://']) {
          t.notOk(line.includes(secret), secret)
        }
      }
    }
  })
}

t.test('an unavailable database or key server is 503 with Retry-After, and a warning', async (t) => {
  const log = logger()
  addToNextApp((app) => {
    app.get('/api/unavailable', () => {
      throw new Unavailable({ cause: Object.assign(new Error('connect'), { code: 'ECONNREFUSED' }) })
    })
  })
  const app = await startApp(t, 'postgres', { LOG_LEVEL: 'info' }, log)
  const answer = await (await clientOf(app, 'alice'))('GET', '/api/unavailable')
  expectProblem(t, answer, 'unavailable')
  t.equal(answer.headers['retry-after'], '1')
  t.match(log.from(40), [
    {
      level: 40,
      reqId: answer.headers['x-request-id'],
      err: { code: 'ECONNREFUSED' },
      reason: 'keys',
      refusals: 1
    }
  ])
})

t.test('many refused requests are one log line, and the next line has their number', async (t) => {
  const log = logger()
  addToNextApp((app) => {
    app.get('/api/unavailable', () => {
      throw new Unavailable()
    })
  })
  const app = await startApp(t, 'postgres', { LOG_LEVEL: 'info' }, log)
  const alice = await clientOf(app, 'alice')
  let refused = 0
  await until(async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => alice('GET', '/api/unavailable')))
    t.ok(answers.every(({ status }) => status === 503))
    refused += answers.length
    return log.from(40).length >= 3
  })
  const counts = log.from(40).map(({ refusals }) => refusals)
  t.equal(counts[0], 1)
  t.ok(counts[1] >= 20 && counts.reduce((sum, count) => sum + count) <= refused)
})

onEachDatabase(async (t, app, kind) => {
  const alice = await clientOf(app, 'alice')

  t.test('a 4xx is not logged', async (t) => {
    const log = logger()
    const quiet = await startApp(t, kind, { LOG_LEVEL: 'info' }, log)
    const client = await clientOf(quiet, 'alice')
    const answers = [
      await quiet.inject('/'),
      await client('GET', '/no-uuid'),
      await client('POST', '', {}),
      await client('POST', '', '{', JSON_TYPE)
    ]
    t.equal(answers.length, 4)
    t.strictSame(log.lines, [])
  })

  t.test('a 422 lists each error with its path, and its detail joins their messages', async (t) => {
    for (const [body, detail, errors] of [
      [{}, 'title is required.', [{ path: '/title', message: 'title is required' }]],
      [
        { title: 1, description: [], completed: null },
        'title must be text; description must be text or null; completed must be true or false.',
        [
          { path: '/title', message: 'title must be text' },
          { path: '/description', message: 'description must be text or null' },
          { path: '/completed', message: 'completed must be true or false' }
        ]
      ],
      [[], 'The body must be a JSON object.', [{ path: '', message: 'The body must be a JSON object' }]]
    ] as const) {
      const answer = await alice('POST', '', JSON.stringify(body), JSON_TYPE)
      expectProblem(t, answer, 'validation_failed')
      t.match(answer.json, { detail, errors })
      t.equal(answer.json.errors.length, errors.length)
    }
    t.match((await alice('GET', '?status=x')).json, {
      detail: 'status must be all, pending, or completed.',
      errors: [{ path: '/status', message: 'status must be all, pending, or completed' }]
    })
  })

  t.test('every error is valid against the documented schema, and has the status of its code', async (t) => {
    const document = app.swagger() as unknown as { components: { schemas: { Problem: SchemaObject } } }
    const { Problem } = document.components.schemas
    const isValid = new Ajv2020.default().compile({ ...Problem, additionalProperties: false })
    const [first, second] = ['Buy milk', 'Buy bread'].map((title) => JSON.stringify({ title }))
    const once = { ...JSON_TYPE, 'idempotency-key': 'one' }
    const { json: task } = await alice('POST', '', first, once)
    const answers: [keyof typeof STATUS_OF, Answer][] = [
      ['bad_request', await alice('POST', '', '{', JSON_TYPE)],
      ['unauthorized', await alice('GET', '', undefined, { authorization: 'Bearer x' })],
      ['forbidden', await alice('GET', '/api/bob/tasks')],
      ['not_found', await alice('GET', '/no-uuid')],
      ['method_not_allowed', await alice('DELETE')],
      ['body_too_large', await alice('POST', '', Buffer.alloc(65_537), JSON_TYPE)],
      ['unsupported_media_type', await alice('POST', '', 'x', { 'content-type': 'text/plain' })],
      ['validation_failed', await alice('POST', '', {})],
      ['idempotency_key_reused', await alice('POST', '', second, once)],
      ['precondition_failed', await alice('DELETE', `/${task.id}`, undefined, { 'if-match': '"9"' })]
    ]
    for (const [code, answer] of answers) {
      expectProblem(t, answer, code)
      t.ok(isValid(answer.json), JSON.stringify(isValid.errors))
      t.match(answer.json.detail, /^\w.*\.$/, 'a sentence')
    }
    t.strictSame(Problem.properties?.code?.enum, Object.keys(STATUS_OF))
  })
})
