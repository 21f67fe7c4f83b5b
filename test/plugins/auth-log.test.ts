import type { FastifyInstance } from 'fastify'
import { compact, hmac, makeKey } from '../fuzz/key-sources.js'
import { request, SECRET, sign, startApp } from '../support/api.js'
import { stopClock } from '../support/clock.js'
import { startKeyServer } from '../support/key-server.js'
import { until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

type Line = Record<string, unknown> & { level: number; msg: string }

const INFO = 30
const DEBUG = 20
const ISSUER = 'https://tenant.example'

/** An app, and its log lines about tokens. */
async function start(t: Test, env: Record<string, string> = {}) {
  let text = ''
  const logStream = {
    write: (line: string) => {
      text += line
    }
  }
  const app = await startApp(t, 'postgres', { LOG_LEVEL: 'info', ...env }, { logStream })
  const lines = () =>
    text
      .split('\n')
      .filter((line) => line.includes('token'))
      .map((line): Line => JSON.parse(line))
  return { app, lines, text: () => text }
}

const list = (app: FastifyInstance, authorization: string) =>
  request(app, 'GET', '/api/alice/tasks', undefined, { authorization })

const past = Math.floor(Date.now() / 1000) - 3600
const good = { sub: 'alice', iss: ISSUER, aud: 'tasks' }
const signed = (claims: object, header: object = {}) =>
  compact({ alg: 'HS256', ...header }, { exp: past + 7200, ...good, ...claims }, hmac(SECRET))

/** Refused requests, with the reason and the text in the log. */
const REFUSED: Record<string, [authorization: string, reason: string, message: RegExp]> = {
  expired: [`Bearer ${signed({ exp: past })}`, 'expired', /expired at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z$/],
  'expired before any date': [`Bearer ${signed({ exp: -1e300 })}`, 'expired', /expired at second -1e\+300$/],
  'without exp': [`Bearer ${signed({ exp: undefined })}`, 'expired', /exp is missing, not a number$/],
  'with exp a text': [`Bearer ${signed({ exp: 'soon' })}`, 'expired', /exp is "soon", not a number$/],
  'not valid yet': [`Bearer ${signed({ nbf: past + 7200 })}`, 'not yet valid', /valid from \d{4}-/],
  'with nbf null': [`Bearer ${signed({ nbf: null })}`, 'not yet valid', /nbf is null, not a number$/],
  'of another issuer': [
    `Bearer ${signed({ iss: `${ISSUER}/` })}`,
    'issuer',
    /iss is "https:\/\/tenant\.example\/", JWT_ISSUER is "https:\/\/tenant\.example"$/
  ],
  'of no issuer': [`Bearer ${signed({ iss: undefined })}`, 'issuer', /iss is missing, JWT_ISSUER is/],
  'for others': [
    `Bearer ${signed({ aud: ['a', 'b'] })}`,
    'audience',
    /aud is \["a","b"\], JWT_AUDIENCE is "tasks"$/
  ],
  'of nobody': [`Bearer ${signed({ sub: 7 })}`, 'subject', /sub is not a text of 1 to 255 characters/],
  'with a broken signature': [`Bearer ${signed({}).slice(0, -3)}`, 'signature', /not signed by JWT_SECRET$/],
  'without a signature': [
    `Bearer ${signed({}).replace(/[^.]*$/, '')}`,
    'signature',
    /not signed by JWT_SECRET$/
  ],
  'with another algorithm': [
    `Bearer ${signed({}, { alg: 'RS256' })}`,
    'algorithm',
    /alg is "RS256", accepted: HS256$/
  ],
  'with an unknown rule': [`Bearer ${signed({}, { crit: ['x'], x: 1 })}`, 'critical header', /crit/],
  'that is none': ['Bearer undefined', 'malformed', /not a JWT$/],
  'whose payload is no object': [
    `Bearer ${compact({ alg: 'HS256' }, '[]', hmac(SECRET))}`,
    'malformed',
    /not a JWT$/
  ],
  'in another scheme': [`Token ${signed({})}`, 'no bearer token', /Authorization is not "Bearer <token>"$/]
}

const env = { JWT_ISSUER: ISSUER, JWT_AUDIENCE: 'tasks' }

t.test('at debug one line has the reason of each refusal, and the answer does not', async (t) => {
  const { app, lines, text } = await start(t, { ...env, LOG_LEVEL: 'debug' })
  let before = 0
  for (const [name, [authorization, reason, message]] of Object.entries(REFUSED)) {
    const answers = [await list(app, authorization), await list(app, authorization)]
    const written = lines().slice(before)
    before += written.length
    t.equal(written.length, 2, `a token ${name}: a line each`)
    for (const line of written) {
      t.equal(line.reason, reason, name)
      t.match(line.msg, /^token refused: /, name)
      t.match(line.msg, message, name)
    }
    t.match(written[1], { level: DEBUG }, name)
    for (const { status, json } of answers) {
      t.equal(status, 401, name)
      t.equal(json.detail, 'A valid bearer token is required.', name)
    }
    const token = authorization.split(' ')[1] as string
    if (token.length > 20) t.notOk(text().includes(token.slice(0, 20)), `${name}: not a piece of the token`)
  }
  t.notOk(text().includes(SECRET))
  await list(app, `Bearer ${signed({})}`)
  t.equal(lines().length, before, 'nothing about a good one')
})

t.test('a request without a token is logged at debug only', async (t) => {
  for (const [level, expected] of [
    ['debug', 3],
    ['info', 0]
  ] as const) {
    const { app, lines } = await start(t, { LOG_LEVEL: level })
    for (let n = 0; n < 3; n++) await request(app, 'GET', '/api/alice/tasks')
    t.equal(lines().length, expected, level)
    for (const line of lines())
      t.match(line, { level: DEBUG, msg: 'no token: there is no Authorization header' })
  }
})

t.test('at info the first refusal for each reason in a minute is logged', async (t) => {
  const { app, lines } = await start(t, env)
  const clock = stopClock(t)
  const refused = Object.values(REFUSED)
  const kinds = [...new Set(refused.map(([, reason]) => reason))].sort()
  const sendAll = async () => {
    for (const [authorization] of refused) await list(app, authorization)
  }
  const logged = () =>
    lines()
      .map(({ reason }) => reason)
      .sort()

  await sendAll()
  t.strictSame(logged(), kinds)
  for (const line of lines()) t.match(line, { level: INFO, refusals: 1 })
  await sendAll()
  clock.advance(59_000)
  await sendAll()
  t.strictSame(logged(), kinds, 'no more within the minute')
  clock.advance(2_000)
  await sendAll()
  t.strictSame(logged(), [...kinds, ...kinds].sort(), 'and again after it')
  const count = (kind: string) => refused.filter(([, reason]) => reason === kind).length
  for (const { reason, refusals } of lines().slice(kinds.length)) {
    // The rest of the first round, two more rounds, and the first of the last round.
    t.equal(refusals, 3 * count(String(reason)), `${reason}: how many there were since`)
  }
})

t.test('a token cannot forge, flood or colour the log', async (t) => {
  const { app, lines, text } = await start(t, { ...env, LOG_LEVEL: 'debug' })
  const hostile = [
    'a\n{"level":60,"msg":"forged token"}',
    '\r\nforged token',
    '\u001b[2J\u001b]0;forged\u0007',
    '\u009b2J',
    '\u2028\u2029\u202e\u200b\ufeff',
    '\ud800',
    '"}{"',
    '%s %o %j %d',
    'x'.repeat(9_000),
    '\u001b'.repeat(2_000)
  ]
  let sent = 0
  for (const value of [...hostile, hostile, { [hostile[0] as string]: hostile }, Array(2_000).fill(1)]) {
    const tokens = [
      signed({}, { alg: value }),
      signed({ iss: value }),
      signed({ aud: value }),
      signed({ exp: value }),
      signed({ nbf: value }),
      signed({ sub: value === hostile[0] ? '' : [value] })
    ]
    for (const token of tokens) {
      t.equal((await list(app, `Bearer ${token}`)).status, 401)
      sent++
    }
  }
  t.equal(lines().length, sent, 'a line each')
  for (const { msg, level } of lines()) {
    t.match(msg, /^token refused: [\x20-\x7e]*$/)
    t.ok(msg.length < 1_400, `${msg.length} characters`)
    t.ok(level < 40)
  }
  t.match(text(), /^[\x20-\x7e\n]*$/)
})

t.test('the log has the reason of each refusal with keys from a URL', async (t) => {
  const [known, stranger] = [await makeKey('ES256'), await makeKey('ES256')]
  const server = await startKeyServer(t, [{ ...known.jwk, kid: 'first' }])
  const { app, lines } = await start(t, { ...env, LOG_LEVEL: 'debug', JWT_SECRET: '', JWKS_URL: server.url })
  await until(async () => server.requests.length === 1)
  const claims = { exp: past + 7200, ...good }
  const cases: [name: string, token: string, reason: string, message: RegExp][] = [
    [
      'an unknown kid',
      compact({ alg: 'ES256', kid: 'second' }, claims, stranger.sign),
      'unknown key',
      /no key at JWKS_URL that fits kid "second" and alg "ES256"$/
    ],
    [
      'a key for another algorithm',
      compact({ alg: 'RS256', kid: 'first' }, claims, stranger.sign),
      'unknown key',
      /fits kid "first" and alg "RS256"$/
    ],
    [
      'a kid that is a number',
      compact({ alg: 'ES256', kid: 1 }, claims, known.sign),
      'unknown key',
      /kid is 1, not a text$/
    ],
    [
      'a bad signature',
      compact({ alg: 'ES256', kid: 'first' }, claims, stranger.sign),
      'signature',
      /not signed by any key at JWKS_URL that fits kid "first" and alg "ES256"$/
    ],
    [
      'a bad signature without kid',
      compact({ alg: 'ES256' }, claims, stranger.sign),
      'signature',
      /fits kid missing and alg "ES256"$/
    ],
    [
      'a shared secret',
      compact({ alg: 'HS256', kid: 'first' }, claims, hmac(SECRET)),
      'algorithm',
      /alg is "HS256", accepted: RS256, PS256, ES256, EdDSA, Ed25519$/
    ],
    [
      'expired',
      compact({ alg: 'ES256', kid: 'first' }, { ...claims, exp: past }, known.sign),
      'expired',
      /expired at/
    ],
    [
      'of another issuer',
      compact({ alg: 'ES256', kid: 'first' }, { ...claims, iss: 'x' }, known.sign),
      'issuer',
      /iss is "x"/
    ]
  ]
  for (const [name, token, reason, message] of cases) {
    const before = lines().length
    t.equal((await list(app, `Bearer ${token}`)).status, 401, name)
    const written = lines().slice(before)
    t.equal(written.length, 1, name)
    t.equal(written[0]?.reason, reason, name)
    t.match(written[0]?.msg, message, name)
  }
  t.equal(
    (await list(app, `Bearer ${compact({ alg: 'ES256', kid: 'first' }, claims, known.sign)}`)).status,
    200
  )
})

t.test('a valid token is not logged', async (t) => {
  const { app, text } = await start(t, { LOG_LEVEL: 'trace' })
  const token = await sign({ sub: 'alice' })
  t.equal((await list(app, `Bearer ${token}`)).status, 200)
  for (const part of token.split('.')) t.notOk(text().includes(part))
})
