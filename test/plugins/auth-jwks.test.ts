import { createHash, createHmac, createPublicKey, generateKeyPairSync, sign as signWith } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { exportJWK, generateKeyPair, type JWK, type JWTHeaderParameters, SignJWT } from 'jose'
import { type Answer, request, startApp } from '../support/api.js'
import { stopClock } from '../support/clock.js'
import { migratedDatabase } from '../support/databases.js'
import { failures, hang, type KeyServer, serve, startKeyServer } from '../support/key-server.js'
import { until } from '../support/process.js'
import t, { type Test } from '../support/tap.js'

interface Issuer {
  /** A key as the key server publishes it. */
  jwk: JWK & { kid: string; alg: string }
  sign(claims?: Record<string, unknown>, header?: Partial<JWTHeaderParameters>): Promise<string>
}

async function makeIssuer(kid: string, alg = 'ES256'): Promise<Issuer> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
  return {
    jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' },
    sign: (claims, header) =>
      new SignJWT({ sub: 'alice', exp: Math.floor(Date.now() / 1000) + 3600, ...claims })
        .setProtectedHeader({ alg, kid, ...header })
        .sign(privateKey)
  }
}

const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519']

/** One database for all tests, because these tests do not look at tasks. */
const DATABASE_URL = await migratedDatabase(t)

interface StartOptions {
  env?: Record<string, string>
  /** The key server's answer when the service starts. */
  answer?: KeyServer['answer']
  /** True if the key server is not running then. */
  down?: boolean
}

/**
 * Starts an app with a key server of its own, which has a key "first". The fetch of the start is over, and not in the
 * server's `requests`.
 */
async function start(t: Test, { env = {}, answer = serve, down = false }: StartOptions = {}) {
  const first = await makeIssuer('first')
  const server = await startKeyServer(t, [first.jwk])
  server.answer = answer
  if (down) await server.stop()
  const lines: Record<string, unknown>[] = []
  const logStream = { write: (line: string) => void lines.push(JSON.parse(line)) }
  const base = { JWT_SECRET: '', JWKS_URL: server.url, LOG_LEVEL: 'info', DATABASE_URL }
  const app = await startApp(t, 'postgres', { ...base, ...env }, { logStream })
  const warnings = () => lines.filter(({ level }) => level === 40).map(({ msg }) => msg)
  if (!down) await until(async () => server.requests.length === 1)
  if (down || (answer !== serve && answer !== hang)) await until(async () => warnings().length === 1)
  server.requests.length = 0
  return { app, server, first, lines, warnings }
}

const list = (app: FastifyInstance, token: string) =>
  request(app, 'GET', '/api/alice/tasks', undefined, { authorization: `Bearer ${token}` })

const statusOf = async (app: FastifyInstance, token: string) => (await list(app, token)).status

function is401(t: Test, { status, headers, json }: Answer, name: string) {
  t.equal(status, 401, name)
  t.equal(headers['www-authenticate'], 'Bearer realm="tasks", error="invalid_token"', name)
  t.equal(json.detail, 'A valid bearer token is required.', name)
}

function is503(t: Test, { status, headers, text, json }: Answer, server: KeyServer, name: string) {
  t.equal(status, 503, name)
  t.equal(json.code, 'unavailable', name)
  t.match(headers['retry-after'], /^[1-9]\d*$/, name)
  t.equal(headers['www-authenticate'], undefined, name)
  const { host, port, pathname } = new URL(server.url)
  for (const secret of [host, port, pathname])
    t.notOk(text.includes(secret), `${name}: not a word of the URL`)
}

// These tests mostly wait for the key server and the next fetch, so they run at the same time.
t.test('with a running clock', async (t) => {
  t.jobs = 2

  t.test('RS256, PS256, ES256, EdDSA and Ed25519 tokens are accepted after one fetch', async (t) => {
    const { app, server } = await start(t)
    const issuers = await Promise.all(ALGORITHMS.map((alg) => makeIssuer(`key-${alg}`, alg)))
    server.keys.push(...issuers.map(({ jwk }) => jwk))
    for (const { sign, jwk } of issuers) {
      const answer = await request(
        app,
        'POST',
        '/api/alice/tasks',
        { title: jwk.alg },
        { authorization: `Bearer ${await sign()}` }
      )
      t.equal(answer.status, 201, jwk.alg)
      t.equal(answer.json.user_id, 'alice', jwk.alg)
    }
    t.strictSame(server.requests, ['/jwks.json'])
  })

  t.test('an Ed25519 key and its tokens may have either name of the algorithm', async (t) => {
    const { app, server } = await start(t)
    const names = ['EdDSA', 'Ed25519']
    const issuers = await Promise.all(names.map((name) => makeIssuer(name, name)))
    server.keys.push(...issuers.map(({ jwk }) => jwk))
    for (const { jwk, sign } of issuers) {
      for (const alg of names)
        t.equal(await statusOf(app, await sign({}, { alg })), 200, `${jwk.alg}, ${alg}`)
    }
  })

  t.test('keys without alg, use and kid, and tokens without kid, work if only one key fits', async (t) => {
    const { app, server } = await start(t)
    const issuers = await Promise.all(['EdDSA', 'RS256'].map((alg) => makeIssuer('', alg)))
    server.keys.splice(0, 1, ...issuers.map(({ jwk: { alg, use, kid, ...jwk } }) => jwk))
    for (const { sign, jwk } of issuers) {
      t.equal(await statusOf(app, await sign({}, { kid: undefined } as object)), 200, jwk.alg)
    }
  })

  t.test('a token that no key of the server signed is refused, with any header', async (t) => {
    const { app, server, first } = await start(t)
    const rsa = await makeIssuer('rsa', 'RS256')
    server.keys.push(rsa.jwk)
    const good = await first.sign()
    t.equal(await statusOf(app, good), 200)
    const fetched = server.requests.length

    const hmac = (secret: string | Buffer, kid: string) => {
      const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
      const input = `${part({ alg: 'HS256', kid })}.${part({ sub: 'alice', exp: 4e9 })}`
      return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
    }
    const confused = [first.jwk, rsa.jwk].flatMap((jwk) => {
      const key = createPublicKey({ key: jwk as never, format: 'jwk' })
      const pem = key.export({ type: 'spki', format: 'pem' }) as string
      const der = key.export({ type: 'spki', format: 'der' })
      const secrets = {
        PEM: pem,
        'PEM without its last line break': pem.trim(),
        DER: der,
        'DER in base64': der.toString('base64'),
        JWK: JSON.stringify(jwk),
        x: jwk.x ?? (jwk.n as string)
      }
      return Object.entries(secrets).map(([name, secret]): [string, string] => [
        `HS256 with the public ${jwk.alg} key as ${name}`,
        hmac(secret, jwk.kid)
      ])
    })
    const [head, payload, signature] = good.split('.') as [string, string, string]
    const header = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const stranger = await makeIssuer('first')
    const bad: Record<string, string> = {
      ...Object.fromEntries(confused),
      'alg none': `${header({ alg: 'none', kid: 'first' })}.${payload}.`,
      'alg None': `${header({ alg: 'None', kid: 'first' })}.${payload}.`,
      'no alg': `${header({ kid: 'first' })}.${payload}.${signature}`,
      'the alg of another key': `${header({ alg: 'RS256', kid: 'first' })}.${payload}.${signature}`,
      'no signature': `${head}.${payload}.`,
      'a cut signature': good.slice(0, -2),
      'another payload': `${head}.${header({ sub: 'alice', exp: 4e9 })}.${signature}`,
      'another key with the same kid': await stranger.sign(),
      'another key in jwk': await stranger.sign({}, { jwk: stranger.jwk }),
      'crit that nobody knows': await first.sign({}, { kid: 'first', crit: ['b64'], b64: true }),
      garbage: 'garbage',
      'kid a number': `${header({ alg: 'ES256', kid: 1 })}.${payload}.${signature}`,
      'kid null': `${header({ alg: 'ES256', kid: null })}.${payload}.${signature}`,
      'kid an object': `${header({ alg: 'ES256', kid: { first: 1 } })}.${payload}.${signature}`
    }
    for (const [name, token] of Object.entries(bad)) is401(t, await list(app, token), name)
    t.equal(server.requests.length, fetched + 1, 'only the one that no key fits makes the service fetch them')
  })

  t.test('a token cannot choose the key server', async (t) => {
    const { app, server } = await start(t)
    const stranger = await makeIssuer('stranger')
    const other = await startKeyServer(t, [stranger.jwk])
    const elsewhere = { jku: other.url, x5u: other.url, jwk: stranger.jwk }
    for (const kid of ['first', 'stranger', other.url]) {
      is401(t, await list(app, await stranger.sign({ iss: other.url }, { ...elsewhere, kid })), kid)
    }
    t.strictSame(other.requests, [], 'nothing is asked there')
    t.strictSame([...new Set(server.requests)], ['/jwks.json'])
  })

  t.test('every key that fits is tried', async (t) => {
    const { app, server } = await start(t)
    const twins = await Promise.all(Array.from({ length: 4 }, () => makeIssuer('twin')))
    const anonymous = await Promise.all(Array.from({ length: 4 }, () => makeIssuer('', 'RS256')))
    server.keys.push(
      ...twins.map(({ jwk }) => jwk),
      ...anonymous.map(({ jwk: { kid, alg, use, ...jwk } }) => jwk),
      // The whole set again.
      ...[...twins, ...anonymous].map(({ jwk }) => jwk)
    )

    t.test('several keys with one kid', async (t) => {
      for (const { sign } of twins) t.equal(await statusOf(app, await sign()), 200)
      is401(t, await list(app, await (await makeIssuer('twin')).sign()), 'none of them')
    })

    t.test('a token without kid', async (t) => {
      for (const { sign } of anonymous) {
        t.equal(await statusOf(app, await sign({}, { kid: undefined } as object)), 200)
      }
      is401(
        t,
        await list(app, (await anonymous[0]?.sign({ exp: 1 }, { kid: undefined } as object)) as string),
        'expired'
      )
    })

    t.test('at most five different keys are tried for one token', async (t) => {
      const many = await Promise.all(Array.from({ length: 20 }, () => makeIssuer('many')))
      // Each key is in the set five times, and is tried once.
      server.keys.splice(0, server.keys.length, ...many.flatMap(({ jwk }) => Array(5).fill(jwk)))
      const statuses: number[] = []
      for (const { sign } of many) statuses.push(await statusOf(app, await sign()))
      t.strictSame(statuses, [...Array(5).fill(200), ...Array(15).fill(401)])
    })
  })

  t.test('invalid entries among the keys are ignored', async (t) => {
    const { app, server, first } = await start(t)
    const good = await makeIssuer('good', 'RS256')
    const { privateKey } = await generateKeyPair('ES256', { extractable: true })
    const { jwk } = first
    const nonsense: unknown[] = [
      ...[
        null,
        true,
        1,
        'key',
        [],
        [jwk],
        {},
        { kty: null },
        { kty: 'RSA' },
        { kty: ['EC'] },
        { kid: 'good' }
      ],
      { kty: 'RSA', kid: 'good', alg: 'RS256' },
      { kty: 'RSA', kid: 'good', alg: 'RS256', n: 'AQAB', e: 'AQAB' },
      { kty: 'RSA', kid: 'good', alg: 'RS256', n: '!', e: 1 },
      { kty: 'EC', kid: 'bad', crv: 'P-256', x: 'AA', y: 'AA' },
      { kty: 'EC', kid: 'bad', crv: 'P-257', x: jwk.x, y: jwk.y },
      { kty: 'oct', kid: 'good', k: 'c2VjcmV0' },
      { kty: 'OKP', kid: 'bad', crv: 'Ed448', x: 'AA' },
      { ...jwk, kid: 'bad', use: 'enc' },
      { ...jwk, kid: 'bad', use: null },
      { ...jwk, kid: 'bad', key_ops: 'verify' },
      { ...jwk, kid: 'bad', key_ops: ['sign'] },
      { ...jwk, kid: 'bad', ext: 'true' },
      { ...jwk, kid: ['bad'] },
      { ...jwk, kid: 'bad', alg: ['ES256'] },
      // A private key that was published must not be accepted.
      { ...(await exportJWK(privateKey)), kid: 'bad', alg: 'ES256' }
    ]
    server.keys.splice(0, 1, ...(nonsense as JWK[]), good.jwk, ...(nonsense as JWK[]))
    t.equal(await statusOf(app, await good.sign()), 200)
    t.equal(await statusOf(app, await good.sign({}, { kid: undefined } as object)), 200)
    is401(t, await list(app, await first.sign({}, { kid: 'bad' })), 'a key that cannot be used')
  })

  t.test('an RSA key with the exponent 1 is not used: everyone can sign with it', async (t) => {
    const { app, server } = await start(t)
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 })
    server.keys.push({ ...publicKey.export({ format: 'jwk' }), e: 'AQ', kid: 'one', alg: 'RS256' } as JWK)
    const header = { alg: 'RS256', kid: 'one' }
    const claims = { sub: 'alice', exp: Math.floor(Date.now() / 1000) + 3_600 }
    const text = [header, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.')
    // PKCS #1 v1.5: the padding, the identifier of SHA-256 and the digest are the signature.
    const digest = createHash('sha256').update(text).digest()
    const suffix = Buffer.concat([Buffer.from('003031300d060960864801650304020105000420', 'hex'), digest])
    const signature = Buffer.concat([
      Buffer.from([0, 1]),
      Buffer.alloc(256 - 2 - suffix.length, 0xff),
      suffix
    ])
    is401(t, await list(app, `${text}.${signature.toString('base64url')}`), 'forged')
  })

  t.test('an RSA key of less than 2,048 bits is not used (RFC 7518, section 3.3)', async (t) => {
    const { app, server } = await start(t)
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 1_024 })
    const jwk = publicKey.export({ format: 'jwk' }) as JWK
    server.keys.push({ ...jwk, kid: 'weak', alg: 'RS256' })
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const input = `${part({ alg: 'RS256', kid: 'weak' })}.${part({ sub: 'alice', exp: 4e9 })}`
    const signature = signWith('sha256', Buffer.from(input), privateKey).toString('base64url')
    is401(t, await list(app, `${input}.${signature}`), '1,024 bits')
  })

  t.test('a new key works at once, even directly after a fetch', async (t) => {
    const { app, server, first } = await start(t)
    t.equal(await statusOf(app, await first.sign()), 200)
    let rotations = 0
    // Each directly after the fetch of the previous one.
    for (const alg of ALGORITHMS) {
      const next = await makeIssuer(`rotation-${rotations++}`, alg)
      server.keys.splice(0, server.keys.length, next.jwk)
      const token = await next.sign()
      const answers = await Promise.all(Array.from({ length: 5 }, () => list(app, token)))
      for (const { status } of answers) t.equal(status, 200, alg)
      t.ok(server.requests.length === rotations, 'one fetch for all')
    }
  })

  t.test(
    'a new key works at once for a token without kid, although the old key is tried first',
    async (t) => {
      const { app, server } = await start(t)
      const sign = (issuer: Issuer) => issuer.sign({}, { kid: undefined } as object)
      const [old, next] = (await Promise.all(['', ''].map((kid) => makeIssuer(kid)))) as [Issuer, Issuer]
      const publish = ({ jwk: { kid, ...jwk } }: Issuer) => server.keys.splice(0, server.keys.length, jwk)
      publish(old)
      t.equal(await statusOf(app, await sign(old)), 200)
      publish(next)
      t.equal(await statusOf(app, await sign(next)), 200)
    }
  )

  t.test('the start does not wait for a key server that hangs', async (t) => {
    const { app, server, first, warnings } = await start(t, { answer: hang })
    t.strictSame(warnings(), [])
    server.answer = serve
    await until(async () => warnings().length === 1)
    t.match(warnings()[0], `JWKS_URL ${server.url} did not answer within 2500 ms`)
    await until(async () => (await statusOf(app, await first.sign())) === 200)
  })

  t.test('a key server that hangs delays only tokens with an unknown key', async (t) => {
    const { app, server, first } = await start(t)
    server.answer = hang
    let isAnswered = false
    const unknown = list(app, await first.sign({}, { kid: 'unknown' })).finally(() => {
      isAnswered = true
    })
    t.equal(await statusOf(app, await first.sign()), 200, 'a known key')
    t.notOk(isAnswered, 'while the other request waits')
    is503(t, await unknown, server, 'unknown')
  })

  t.test('while the key server hangs, a limited number of requests wait for it', async (t) => {
    const { app, server, first, lines } = await start(t)
    server.answer = hang
    // Tokens of an unknown key, so that requests wait only for the key server.
    const token = await (await makeIssuer('other')).sign()
    const all = Promise.all(Array.from({ length: 1_100 }, () => statusOf(app, token)))
    t.equal(await statusOf(app, await first.sign()), 200, 'a known key needs no wait')
    t.same(await all, Array(1_100).fill(503))
    const [refused] = lines.filter(({ msg }) => msg === 'requests refused')
    t.match(
      refused?.err,
      { message: `JWKS_URL ${server.url}: 1000 requests wait for it already` },
      'some at once'
    )
  })

  t.test('the start warns about a URL that has no usable key set', async (t) => {
    const jwks_uri = 'https://issuer.example/jwks'
    const json =
      (value: unknown): KeyServer['answer'] =>
      (response) =>
        void response.end(JSON.stringify(value))
    const secret = { kty: 'oct', k: 'c2VjcmV0', alg: 'HS256' }
    const cases: [name: string, answer: KeyServer['answer'], warning: RegExp][] = [
      [
        'a discovery document',
        json({ issuer: 'x', jwks_uri }),
        /its jwks_uri is "https:\/\/issuer\.example\/jwks"/
      ],
      [
        'a page of the issuer',
        (response) => response.setHeader('Content-Type', 'text/html').end('<html>'),
        /answered no JSON, but "text\/html"/
      ],
      ['one key', json({ kty: 'EC' }), /is no JSON Web Key Set/],
      ['null', json(null), /is no JSON Web Key Set/],
      ['a text', json('keys'), /is no JSON Web Key Set/],
      ['keys by name', json({ keys: { a: {} } }), /is no JSON Web Key Set/],
      ['no keys', json({ keys: [] }), /has no public key for RS256, PS256, ES256, EdDSA, Ed25519/],
      [
        'keys of other kinds',
        json({ keys: [secret, null, { kty: 'EC', crv: 'P-384' }] }),
        /has no public key/
      ],
      [
        'a redirect with secrets',
        (response) => response.writeHead(307, { Location: 'https://login.example/in?state=s3cret' }).end(),
        /answered 307, a redirect to https:\/\/login\.example\/in\?\.\.\.;/
      ],
      [
        'a redirect to nowhere',
        (response) => response.writeHead(301, { Location: 'http://[' }).end(),
        /answered 301, a redirect to "http:\/\/\["/
      ],
      ['nothing', (response) => response.writeHead(204).end(), /answered 204/]
    ]
    for (const [name, answer, warning] of cases) {
      t.test(name, async (t) => {
        const { server, warnings } = await start(t, { answer })
        t.equal(warnings().length, 1)
        t.match(warnings()[0], warning)
        t.ok(String(warnings()[0]).startsWith(`JWKS_URL ${server.url} `))
        t.notMatch(warnings()[0], /s3cret/)
      })
    }

    t.test('and does not warn if there is a key', async (t) => {
      const { app, first, warnings } = await start(t)
      t.equal(await statusOf(app, await first.sign()), 200)
      t.strictSame(warnings(), [])
    })

    t.test("the URL's query is not in the log", async (t) => {
      const server = await startKeyServer(t)
      const lines: string[] = []
      const logStream = { write: (line: string) => void lines.push(line) }
      const env = { JWT_SECRET: '', JWKS_URL: `${server.url}?apikey=s3cret`, LOG_LEVEL: 'info', DATABASE_URL }
      await startApp(t, 'postgres', env, { logStream })
      await until(async () => lines.length > 0)
      t.match(lines[0], `JWKS_URL ${server.url}?... has no public key`)
      t.notMatch(lines.join(), /s3cret/)
    })
  })
})

// These tests share the clock, so they run one after the other.
t.test('the claims of tokens with these keys are checked: 401', async (t) => {
  const { app, first } = await start(t, {
    env: { JWT_ISSUER: 'https://issuer.example', JWT_AUDIENCE: 'tasks' }
  })
  const good = { iss: 'https://issuer.example', aud: 'tasks' }
  const past = Math.floor(Date.now() / 1000) - 60
  t.equal(await statusOf(app, await first.sign(good)), 200)
  t.equal(await statusOf(app, await first.sign({ ...good, exp: past + 3600.5 })), 200, 'exp fractional')
  const bad: Record<string, Record<string, unknown>> = {
    'no iss': { aud: 'tasks' },
    'another iss': { ...good, iss: 'https://other.example' },
    'no aud': { iss: good.iss },
    'another aud': { ...good, aud: 'other' },
    'no exp': { ...good, exp: undefined },
    'exp past': { ...good, exp: past },
    'exp a text': { ...good, exp: 'tomorrow' },
    'exp hugely negative': { ...good, exp: -1e300 },
    'nbf in the future': { ...good, nbf: past + 3600 },
    'no sub': { ...good, sub: undefined },
    'sub empty': { ...good, sub: '' },
    'sub a number': { ...good, sub: 1 }
  }
  for (const [name, claims] of Object.entries(bad)) {
    is401(t, await list(app, await first.sign(claims)), name)
  }
})

t.test('a token with an unsupported algorithm causes no fetch', async (t) => {
  const { app, server, first } = await start(t)
  const [, payload] = (await first.sign()).split('.')
  for (const alg of ['none', 'HS256', 'HS512', 'RS512', 'ES384', 'RSA-OAEP', '']) {
    const header = Buffer.from(JSON.stringify({ alg, kid: 'first' })).toString('base64url')
    is401(t, await list(app, `${header}.${payload}.c2ln`), alg)
  }
  t.strictSame(server.requests, [])
})

t.test('a set of 2,000 keys works, and at most 1 MiB is read', async (t) => {
  const { app, server, first } = await start(t)
  const clock = stopClock(t)
  const { jwk } = first
  const last = await makeIssuer('last')
  server.keys.push(...Array.from({ length: 2_000 }, (_, n) => ({ ...jwk, kid: `key-${n}` })), last.jwk)
  t.equal(await statusOf(app, await last.sign()), 200)
  t.equal(await statusOf(app, await first.sign({}, { kid: 'key-1999' })), 200)

  let sent = 0
  server.answer = (response) => {
    response.writeHead(200, { 'Content-Type': 'application/json' })
    const more = () => {
      while (!response.destroyed && response.write(' '.repeat(65_536))) sent += 65_536
      if (!response.destroyed) response.once('drain', more)
    }
    more()
  }
  clock.advance(300_000)
  is503(t, await list(app, await last.sign({ iat: 1 })), server, 'endless')
  t.ok(sent < 20_000_000, `${sent} bytes were sent`)
})

t.test('tokens with unknown kids are refused, and cause few fetches', async (t) => {
  const { app, server, first } = await start(t)
  const clock = stopClock(t)
  const unknown = (n: number) => first.sign({}, { kid: `unknown-${n}` })
  const times: number[] = []
  server.answer = (response) => {
    times.push(clock.passed())
    serve(response, server)
  }

  t.test('each gets 401, in sequence or at the same time', async (t) => {
    const tokens = await Promise.all(Array.from({ length: 30 }, (_, n) => unknown(n)))
    for (const answer of await Promise.all(tokens.slice(0, 20).map((token) => list(app, token)))) {
      is401(t, answer, 'at once')
    }
    t.ok(times.length <= 2, '20 cause one fetch, or two when one has begun as the last ones come')
    for (const token of tokens.slice(20)) is401(t, await list(app, token), 'one after the other')
  })

  t.test('they cause a few fetches, one a second, and then none', async (t) => {
    t.equal(times.length, 5)
    // A timer may be a millisecond early.
    for (const [n, time] of times.entries()) t.ok(n === 0 || time - (times[n - 1] as number) > 990, `${time}`)
    t.equal(await statusOf(app, await first.sign({ iat: 1 })), 200, 'known keys are not concerned')
  })

  t.test('then one fetch in five seconds', async (t) => {
    for (let n = 0; n < 3; n++) {
      clock.advance(5_000)
      for (let m = 0; m < 5; m++) is401(t, await list(app, await unknown(m)), `unknown-${m}`)
      t.equal(times.length, 6 + n)
    }
  })

  t.test('and later a few again', async (t) => {
    clock.advance(60_000)
    const before = times.length
    for (let m = 0; m < 7; m++) is401(t, await list(app, await unknown(m)), `unknown-${m}`)
    t.equal(times.length - before, 5)
  })
})

t.test('a token with invalid claims causes no fetch', async (t) => {
  const { app, server, first } = await start(t, { env: { JWT_ISSUER: 'me', JWT_AUDIENCE: 'tasks' } })
  const good = { iss: 'me', aud: 'tasks' }
  const tokens = {
    expired: await first.sign({ ...good, exp: 1 }, { kid: 'other' }),
    'of another issuer': await first.sign({ ...good, iss: 'you' }, { kid: 'other' }),
    'for another audience': await first.sign({ ...good, aud: 'others' }, { kid: 'other' }),
    'of nobody': await first.sign({ ...good, sub: '' }, { kid: 'other' })
  }
  for (const [name, token] of Object.entries(tokens)) is401(t, await list(app, token), name)
  t.strictSame(server.requests, [])
})

t.test('a request that arrives during a fetch may cause another one', async (t) => {
  const { app, server, first } = await start(t)
  const clock = stopClock(t)
  t.equal(await statusOf(app, await first.sign()), 200)
  clock.advance(300_000)
  let release = () => {}
  server.answer = (response) => {
    const body = JSON.stringify({ keys: server.keys })
    release = () => response.end(body)
  }
  const waits = list(app, await first.sign({ iat: 1 }))
  await until(async () => server.requests.length === 1)
  // The current fetch does not return this key.
  const second = await makeIssuer('second')
  server.keys.push(second.jwk)
  const asks = list(app, await second.sign())
  server.answer = serve
  release()
  t.equal((await waits).status, 200)
  t.equal((await asks).status, 200)
  t.equal(server.requests.length, 2)
})

t.test('each fetch has a connection of its own: an idle one may be dead', async (t) => {
  const { app, server } = await start(t)
  server.answer = (response, { keys }) => {
    response.setHeader('Keep-Alive', 'timeout=300')
    serve(response, { ...server, keys })
  }
  for (const kid of ['next', 'the one after']) {
    const before = server.connections
    const issuer = await makeIssuer(kid)
    server.keys.push(issuer.jwk)
    t.equal(await statusOf(app, await issuer.sign()), 200)
    t.equal(server.connections, before + 1)
  }
})

t.test('a removed key is refused after 4.5 minutes, even for a cached token', async (t) => {
  const { app, server, first } = await start(t)
  const clock = stopClock(t)
  const token = await first.sign()
  t.equal(await statusOf(app, token), 200)
  const second = await makeIssuer('second')
  server.keys.splice(0, 1, second.jwk)
  clock.advance(239_000)
  t.equal(await statusOf(app, token), 200, 'looked at again, just before the keys are')
  clock.advance(31_000)
  is401(t, await list(app, token), 'removed')
  t.equal(await statusOf(app, await second.sign()), 200)
})

t.test('a removed key is refused in time if the clock is set back after its token was cached', async (t) => {
  const { app, server, first } = await start(t)
  const clock = stopClock(t)
  clock.step(3_600_000)
  const token = await first.sign({ exp: clock.now() + 9_000 })
  clock.advance(239_000)
  t.equal(await statusOf(app, token), 200)
  const fetches = server.requests.length
  server.keys.splice(0, 1, (await makeIssuer('second')).jwk)
  clock.step(-3_600_000)
  clock.advance(31_000)
  is401(t, await list(app, token), 'removed')
  t.equal(server.requests.length, fetches + 1)
})

t.test('a token of a removed key is not accepted again when the clock catches up', async (t) => {
  const { app, server, first } = await start(t)
  const clock = stopClock(t)
  const token = await first.sign({ exp: clock.now() + 9_000 })
  t.equal(await statusOf(app, token), 200)
  server.keys.splice(0, 1, (await makeIssuer('second')).jwk)
  // The cached token is not used meanwhile.
  clock.step(-3_600_000)
  clock.advance(3_600_000)
  is401(t, await list(app, token), 'removed an hour ago')
})

for (const [what, hours] of [
  ['a suspension, which the process does not notice', 8],
  ['the clock was set back', -1]
] as const) {
  t.test(`keys are fetched once after ${what}`, async (t) => {
    const { app, server, first } = await start(t)
    const clock = stopClock(t)
    t.equal(await statusOf(app, await first.sign()), 200)
    const fetches = server.requests.length
    server.keys.splice(0, 1, (await makeIssuer('second')).jwk)
    clock.step(hours * 3_600_000)
    is401(t, await list(app, await first.sign({ jti: 'new' })), 'removed')
    t.equal(server.requests.length, fetches + 1)
    is401(t, await list(app, await first.sign({ jti: 'newer', nbf: 0 })), 'still')
  })
}

t.test('a fetched key works for at most 5 minutes while the key server is away', async (t) => {
  const { app, server, first } = await start(t)
  const clock = stopClock(t)
  const token = await first.sign()
  t.equal(await statusOf(app, token), 200)
  await server.stop()
  clock.advance(120_000)
  t.equal(await statusOf(app, token), 200)
  is503(t, await list(app, await first.sign({}, { kid: 'unknown' })), server, 'a kid that may be new')
  t.equal(await statusOf(app, token), 200, 'still')
  clock.advance(180_000)
  is503(t, await list(app, token), server, 'too old')
  await server.start()
  clock.advance(2_000)
  t.equal(await statusOf(app, token), 200, 'and again when the server is back')
})

const REASONS: Record<string, RegExp> = {
  'answers 500': /answered 500$/,
  'answers 404': /answered 404$/,
  'sends no JSON': /answered no JSON, but "no Content-Type"$/,
  'sends no key set': /answered JSON that is no JSON Web Key Set$/,
  'redirects elsewhere': /answered 302, a redirect to http:\/\/127\.0\.0\.1:\d+\/elsewhere$/,
  'cuts the connection': /cannot be read: other side closed$/,
  'is down': /cannot be read: connect ECONNREFUSED 127\.0\.0\.1:\d+$/
}

for (const [name, answer] of Object.entries({ ...failures, 'is down': serve })) {
  t.test(`503 while the key server ${name}, and success without a restart afterwards`, async (t) => {
    const down = name === 'is down'
    const { app, server, first, lines, warnings } = await start(t, { answer, down })
    const clock = stopClock(t)
    t.equal(warnings().length, 1)
    t.ok(String(warnings()[0]).startsWith(`JWKS_URL ${server.url} `), 'a start names it')
    const token = await first.sign()
    for (let n = 0; n < 3; n++) {
      clock.advance(2_000)
      is503(t, await list(app, token), server, 'failed')
    }
    t.strictSame(server.requests, down ? [] : Array(3).fill('/jwks.json'), 'a redirect is not followed')
    const [refused] = lines.filter(({ msg }) => msg === 'requests refused')
    const { message } = refused?.err as { message: string }
    t.equal(`${message}; tokens cannot be verified until that changes`, warnings()[0], 'and so does the 503')
    t.match(message, REASONS[name], 'and both say why')
    if (down) await server.start()
    server.answer = serve
    clock.advance(1_000)
    t.equal(await statusOf(app, token), 200, 'works again')
  })
}

t.test('a failing key server gets at most one fetch a second', async (t) => {
  const { app, server, first } = await start(t, { answer: failures['answers 500'] as KeyServer['answer'] })
  const clock = stopClock(t)
  for (let second = 1; second <= 3; second++) {
    clock.advance(1_000)
    for (let n = 0; n < 10; n++) {
      is503(t, await list(app, await first.sign({}, { kid: `kid-${n}` })), server, `kid-${n}`)
    }
    t.equal(server.requests.length, second)
  }
})

t.test(
  'a key server that hangs delays a request by at most 3 s, and all waiting requests share one fetch',
  async (t) => {
    const { app, server, first } = await start(t)
    const clock = stopClock(t)
    const token = await first.sign()
    clock.advance(300_000)
    server.answer = hang
    const began = clock.passed()
    const answers = await Promise.all(Array.from({ length: 5 }, () => list(app, token)))
    // Wide limits, because machines may be slow, and other timeouts are longer.
    t.ok(clock.passed() - began < 4_500)
    for (const answer of answers) is503(t, answer, server, 'hung')
    t.equal(server.requests.length, 1)
    server.answer = serve
    clock.advance(1_000)
    t.equal(await statusOf(app, token), 200, 'and works again')
  }
)

t.test('an answer that arrives byte by byte times out', async (t) => {
  const { app, server, first } = await start(t)
  const clock = stopClock(t)
  clock.advance(300_000)
  server.answer = (response) => {
    const timer = setInterval(() => response.write(' '), 50)
    response.once('close', () => clearInterval(timer))
  }
  const began = clock.passed()
  is503(t, await list(app, await first.sign()), server, 'slow')
  t.ok(clock.passed() - began < 4_500)
})
