import { createHmac } from 'node:crypto'
import { request as httpRequest, METHODS } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { exportJWK, exportPKCS8, generateKeyPair, SignJWT } from 'jose'
import { clientOf, request, SECRET, sign, startApp } from '../support/api.js'
import { stopClock } from '../support/clock.js'
import t from '../support/tap.js'

const REFUSED = {
  type: 'about:blank',
  title: 'Unauthorized',
  status: 401,
  detail: 'A valid bearer token is required.',
  code: 'unauthorized'
}
const NO_TOKEN = 'Bearer realm="tasks"'
const BAD_TOKEN = `${NO_TOKEN}, error="invalid_token"`

const PATH = '/api/alice/tasks'
const inAnHour = () => Math.floor(Date.now() / 1000) + 3600

const base64url = (part: unknown) =>
  Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url')

/** Signs exactly these parts with an HMAC, whatever the header says. A string is used as JSON text. */
function forge(payload: unknown, header: unknown = { alg: 'HS256' }, secret = SECRET, hash = 'sha256') {
  const input = `${base64url(header)}.${base64url(payload)}`
  return `${input}.${createHmac(hash, secret).update(input).digest('base64url')}`
}

const list = (app: FastifyInstance, token: string, user = 'alice') =>
  request(app, 'GET', `/api/${encodeURIComponent(user)}/tasks`, undefined, {
    authorization: `Bearer ${token}`
  })

/** Sends one request through a socket, with exactly this path: `inject` and fetch would normalise it. */
function send(port: number, method: string, path: string, headers: Record<string, string> = {}) {
  return new Promise<{ status: number | undefined; challenge: string | undefined; text: string }>(
    (resolve, reject) => {
      httpRequest({ port, method, path, headers }, (response) => {
        let text = ''
        response.on('data', (chunk) => {
          text += chunk
        })
        response.on('end', () =>
          resolve({ status: response.statusCode, challenge: response.headers['www-authenticate'], text })
        )
      })
        .on('error', reject)
        .end()
    }
  )
}

async function listen(app: FastifyInstance): Promise<number> {
  await app.listen({ port: 0, host: '127.0.0.1' })
  return (app.server.address() as AddressInfo).port
}

t.test('with a secret', async (t) => {
  const app = await startApp(t)
  const good = await sign({ sub: 'alice' })
  const claims = { sub: 'alice', exp: inAnHour() }
  const [head, payload, signature] = good.split('.') as [string, string, string]

  const refuses = (title: string, headers: Record<string, string | undefined>, challenge: string | RegExp) =>
    t.test(`${title}: each gets the same 401`, async (t) => {
      for (const [name, authorization] of Object.entries(headers)) {
        const answer = await request(
          app,
          'GET',
          PATH,
          undefined,
          authorization === undefined ? {} : { authorization }
        )
        t.equal(answer.status, 401, name)
        t.strictSame(answer.json, REFUSED, name)
        t.match(answer.headers['content-type'], /^application\/problem\+json/, name)
        t.match(answer.headers['www-authenticate'], challenge, name)
      }
    })

  const refusesTokens = (title: string, tokens: Record<string, string>) =>
    refuses(
      title,
      Object.fromEntries(Object.entries(tokens).map(([name, token]) => [name, `Bearer ${token}`])),
      new RegExp(`^${BAD_TOKEN}$`)
    )

  t.test('200 with a valid token', async (t) => {
    t.equal((await list(app, good)).status, 200)
    t.equal((await list(app, forge(claims))).status, 200, 'and with one that these tests put together')
  })

  await refuses(
    'requests that carry no bearer token',
    {
      'no header': undefined,
      'an empty header': '',
      'Basic credentials': 'Basic YWxpY2U6c2VjcmV0',
      'another scheme with a good token': `Token ${good}`,
      'the scheme alone': 'Bearer',
      'the scheme and spaces': 'Bearer   ',
      'a good token without a scheme': good,
      'no space between': `Bearer${good}`,
      'a colon between': `Bearer: ${good}`
    },
    new RegExp(`^${NO_TOKEN}$`)
  )
  await refuses(
    'two tokens in one header',
    {
      'with a space': `Bearer ${good} ${good}`,
      'with a comma': `Bearer ${good}, Bearer ${good}`,
      'with a comma and no space': `Bearer ${good},${good}`
    },
    /^Bearer realm="tasks"/
  )

  await refusesTokens('texts that are no token', {
    garbage: 'garbage',
    dots: '...',
    'two dots': '..',
    'one part': head,
    'two parts': `${head}.${payload}`,
    'four parts': `${good}.${signature}`,
    'five parts, as if encrypted': `${good}.${head}.${payload}`,
    'no header': `.${payload}.${signature}`,
    'no payload': `${head}..${signature}`,
    'bad characters in the header': `${head}!.${payload}.${signature}`,
    'bad characters in the payload': `${head}.$${payload}.${signature}`,
    'bad characters in the signature': `${head}.${payload}.${signature}ä`,
    'padding after the signature': `${good}=`,
    'a header that is no JSON': forge(claims, 'alg=HS256'),
    'a header that is null': forge(claims, 'null'),
    'a header that is a list': forge(claims, [{ alg: 'HS256' }]),
    'a header that is a text': forge(claims, '"HS256"')
  })

  const { privateKey } = await generateKeyPair('RS256', { extractable: true })
  const rs256 = await new SignJWT(claims).setProtectedHeader({ alg: 'RS256' }).sign(privateKey)
  const none = (alg: string) => `${base64url({ alg })}.${base64url(claims)}.`
  await refusesTokens('algorithms other than HS256', {
    ...Object.fromEntries(['none', 'None', 'NONE', 'nOnE', ''].map((alg) => [`alg "${alg}"`, none(alg)])),
    ...Object.fromEntries(
      ['none', 'None', 'hs256', 'HS256 ', 'HS1', 'RS256', 'ES256', 'EdDSA', 'dir'].map((alg) => [
        `alg "${alg}" with a good HMAC`,
        forge(claims, { alg })
      ])
    ),
    'no alg': forge(claims, { typ: 'JWT' }),
    'no alg, no signature': `${base64url({ typ: 'JWT' })}.${base64url(claims)}.`,
    'alg null': forge(claims, { alg: null }),
    'alg a list': forge(claims, { alg: ['HS256'] }),
    'alg an object': forge(claims, { alg: { toString: 'HS256' } }),
    'alg __proto__': forge(claims, '{"alg":"__proto__"}'),
    HS384: forge(claims, { alg: 'HS384' }, SECRET, 'sha384'),
    HS512: forge(claims, { alg: 'HS512' }, SECRET, 'sha512'),
    'RS256 with a key of its own': rs256
  })

  await refusesTokens('signatures that are not by the secret', {
    'another secret': await sign({ sub: 'alice' }, 'x'.repeat(64)),
    'an empty secret': forge(claims, { alg: 'HS256' }, ''),
    'no signature': `${head}.${payload}.`,
    'cut off': good.slice(0, -1),
    'cut to one character': `${head}.${payload}.${signature[0]}`,
    'of another token': `${head}.${base64url({ ...claims, sub: 'bob' })}.${signature}`,
    'of another header': `${base64url({ alg: 'HS256', kid: '1' })}.${payload}.${signature}`
  })

  const jwk = { ...(await exportJWK(privateKey)), alg: 'RS256' }
  const own = {
    jwk: { kty: 'oct', k: base64url('my own') },
    jku: 'http://127.0.0.1:1/',
    x5u: 'http://127.0.0.1:1/'
  }
  await refusesTokens('headers that want to choose the key or the rules', {
    'a secret of its own in jwk': forge(claims, { alg: 'HS256', ...own }, 'my own'),
    'a key of its own in jwk': await new SignJWT(claims)
      .setProtectedHeader({ alg: 'RS256', jwk })
      .sign(privateKey),
    'x5c of its own': forge(claims, { alg: 'HS256', x5c: [await exportPKCS8(privateKey)] }, 'my own'),
    'kid as a path to an empty file': forge(claims, { alg: 'HS256', kid: '../../../dev/null' }, ''),
    'kid as SQL': forge(claims, { alg: 'HS256', kid: "x' union select 'my own" }, 'my own'),
    'kid as an object': forge(claims, { alg: 'HS256', kid: { k: 'my own' } }, 'my own'),
    'crit of something unknown': forge(claims, { alg: 'HS256', crit: ['exp'], exp: 1 }),
    'crit with b64': forge(claims, { alg: 'HS256', crit: ['b64'], b64: false }),
    'crit as a text': forge(claims, { alg: 'HS256', crit: 'exp' }),
    'crit empty': forge(claims, { alg: 'HS256', crit: [] })
  })

  await refusesTokens('payloads that are no claims', {
    'a list': forge([claims]),
    'an empty list': forge('[]'),
    'a text': forge('"alice"'),
    null: forge('null'),
    'a number': forge('1'),
    'a boolean': forge('true'),
    'no JSON': forge('sub=alice'),
    'nothing at all': forge(''),
    'an empty object': forge({})
  })

  const exp = (value: string) => forge(`{"sub":"alice","exp":${value}}`)
  await refusesTokens('times that do not hold', {
    'exp missing': forge({ sub: 'alice' }),
    'exp null': exp('null'),
    'exp a text': exp(`"${inAnHour()}"`),
    'exp a list': exp(`[${inAnHour()}]`),
    'exp an object': exp('{}'),
    'exp true': exp('true'),
    'exp 0': exp('0'),
    'exp negative': exp('-1'),
    'exp hugely negative': exp('-1e300'),
    'exp infinite': exp('1e999'),
    'exp infinite, negative': exp('-1e999'),
    'exp a minute ago': exp(`${inAnHour() - 3660}`),
    'exp twice, the last one past': forge(`{"sub":"alice","exp":${inAnHour()},"exp":1}`),
    'nbf in an hour': forge({ ...claims, nbf: inAnHour() }),
    'nbf huge': forge(`{"sub":"alice","exp":${inAnHour()},"nbf":1e300}`),
    'nbf infinite': forge(`{"sub":"alice","exp":${inAnHour()},"nbf":1e999}`),
    'nbf a text': forge({ ...claims, nbf: '0' }),
    'nbf null': forge({ ...claims, nbf: null }),
    'nbf a list': forge({ ...claims, nbf: [0] })
  })

  const sub = (value: string) => forge(`{"exp":${inAnHour()},"sub":${value}}`)
  await refusesTokens('subjects that name no user', {
    'sub missing': forge({ exp: inAnHour() }),
    'sub null': sub('null'),
    'sub empty': sub('""'),
    'sub a number': sub('1'),
    'sub true': sub('true'),
    'sub a list': sub('["alice"]'),
    'sub an object': sub('{"toString":"alice"}'),
    'sub of 256 characters': sub(JSON.stringify('a'.repeat(256))),
    'sub of 256 emoji': sub(JSON.stringify('😀'.repeat(256))),
    'sub with NUL': sub('"alice\\u0000"'),
    'sub with a lone high surrogate': sub('"alice\\ud800"'),
    'sub with a lone low surrogate': sub('"\\udc00alice"'),
    'the claim SUB': forge({ SUB: 'alice', exp: inAnHour() }),
    'sub inherited': forge(`{"exp":${inAnHour()},"__proto__":{"sub":"alice"}}`)
  })

  t.test('200 with unusual values of optional claims', async (t) => {
    const accepted = {
      'exp far beyond any date': exp('1e300'),
      'exp fractional': exp(`${inAnHour()}.25`),
      'nbf past': forge({ ...claims, nbf: 0 }),
      'nbf fractional': forge({ ...claims, nbf: 0.5 }),
      'iat in the future': forge({ ...claims, iat: inAnHour() }),
      'iat a text': forge({ ...claims, iat: 'yesterday' }),
      'iat null': forge({ ...claims, iat: null }),
      'iss and aud that nobody asked for': forge({ ...claims, iss: 'https://issuer', aud: ['one', 'two'] }),
      'iss a number': forge({ ...claims, iss: 1 }),
      'a kid and another typ': forge(claims, { alg: 'HS256', kid: 'any', typ: 'at+jwt' }),
      'a kid that is no text': forge(claims, { alg: 'HS256', kid: 1 }),
      'claims of its own': forge({ ...claims, role: 'admin', nested: { sub: 'bob' } })
    }
    for (const [name, token] of Object.entries(accepted)) t.equal((await list(app, token)).status, 200, name)
  })

  t.test('of two sub claims in one token only the last counts', async (t) => {
    const token = forge(`{"exp":${inAnHour()},"sub":"alice","sub":"bob"}`)
    t.equal((await list(app, token, 'bob')).status, 200)
    t.equal((await list(app, token, 'alice')).status, 403)
  })

  t.test('exp and nbf have a tolerance of 5 s', async (t) => {
    const clock = stopClock(t)
    const status = async (times: { exp?: number; nbf?: number }) =>
      (await list(app, forge({ ...claims, ...times }))).status
    t.equal(await status({ exp: clock.now() - 3 }), 200, 'expired 3 s ago')
    t.equal(await status({ exp: clock.now() - 4.75 }), 200, 'expired 4.75 s ago')
    t.equal(await status({ exp: clock.now() - 5.25 }), 401, 'expired 5.25 s ago')
    t.equal(await status({ nbf: clock.now() + 4.75 }), 200, 'valid in 4.75 s')
    t.equal(await status({ nbf: clock.now() + 5.25 }), 401, 'valid in 5.25 s')
  })

  t.test('an accepted token is refused after it has expired', async (t) => {
    const clock = stopClock(t)
    const token = await sign({ sub: 'alice', exp: clock.now() + 60 })
    t.equal((await list(app, token)).status, 200)
    clock.advance(66_000)
    t.equal((await list(app, token)).status, 401)
  })

  t.test('the scheme may have any case, and several spaces after it', async (t) => {
    for (const scheme of ['bearer ', 'BEARER ', 'bEaReR ', 'Bearer    ']) {
      const { status } = await request(app, 'GET', PATH, undefined, { authorization: scheme + good })
      t.equal(status, 200, JSON.stringify(scheme))
    }
    t.equal(
      (await request(app, 'GET', PATH, undefined, { authorization: `Bearer ${good}  ` })).status,
      200,
      'and after the token'
    )
  })

  t.test('only a token in the Authorization header counts', async (t) => {
    const elsewhere: [path: string, headers: Record<string, string>][] = [
      ...['token', 'access_token', 'jwt', 'authorization', 'bearer'].flatMap(
        (name): [string, Record<string, string>][] => [
          [`${PATH}?${name}=${good}`, {}],
          [PATH, { cookie: `${name}=${good}` }],
          [PATH, { [`x-${name}`]: good }]
        ]
      ),
      [`${PATH}?authorization=Bearer%20${good}`, {}],
      [PATH, { 'proxy-authorization': `Bearer ${good}` }]
    ]
    for (const [path, headers] of elsewhere) {
      const answer = await request(app, 'GET', path, undefined, headers)
      t.equal(answer.status, 401, path.replace(good, '…') + Object.keys(headers))
      t.equal(answer.headers['www-authenticate'], NO_TOKEN)
    }
    const form = await request(app, 'POST', PATH, `access_token=${good}`, {
      'content-type': 'application/x-www-form-urlencoded'
    })
    t.equal(form.status, 401, 'nor in a form')
  })

  t.test('a request without a token gets 401, even if it is also invalid', async (t) => {
    const json = { 'content-type': 'application/json' }
    for (const [body, headers] of [
      ['{', json],
      ['{"title":""}', json],
      ['x'.repeat(70_000), json],
      ['<a/>', { 'content-type': 'text/xml' }]
    ] as [string, Record<string, string>][]) {
      t.strictSame((await request(app, 'POST', PATH, body, headers)).json, REFUSED, body.slice(0, 20))
    }
    t.strictSame((await request(app, 'GET', `${PATH}?status=wrong`)).json, REFUSED, 'query')
  })
})

t.test('401 without a token for every method on every path, known or not', async (t) => {
  const port = await listen(await startApp(t))
  const paths = [
    '/',
    '/api',
    PATH,
    `${PATH}/`,
    `${PATH}/0199aa00-0000-7000-8000-000000000000`,
    `${PATH}/0199aa00-0000-7000-8000-000000000000/complete`,
    '/api//tasks',
    '/nowhere',
    '/metrics',
    '/openapi.json',
    '/docs',
    '/%zz',
    '/api/%e4/tasks',
    `${PATH}/%`,
    `/api/${'a'.repeat(5_000)}/tasks`
  ]
  // Node closes the connection on CONNECT.
  for (const method of METHODS.filter((name) => name !== 'CONNECT')) {
    const text = method === 'HEAD' ? '' : JSON.stringify(REFUSED)
    const expected = paths.map((path) => ({ path, status: 401, challenge: NO_TOKEN, text }))
    const answers = await Promise.all(
      paths.map(async (path) => ({ path, ...(await send(port, method, path)) }))
    )
    t.strictSame(answers, expected, method)
  }
  t.equal((await send(port, 'OPTIONS', '*')).status, 401, 'OPTIONS *')
})

t.test('with JWT_ISSUER and JWT_AUDIENCE', async (t) => {
  const app = await startApp(t, 'postgres', { JWT_ISSUER: 'https://issuer.example', JWT_AUDIENCE: 'tasks' })
  const iss = 'https://issuer.example'
  const aud = 'tasks'

  t.test('tokens with this iss and aud are accepted', async (t) => {
    t.equal((await list(app, await sign({ sub: 'alice', iss, aud }))).status, 200)
    t.equal(
      (await list(app, await sign({ sub: 'alice', iss, aud: ['other', aud] }))).status,
      200,
      'one of several'
    )
  })

  t.test('all other tokens get the same 401', async (t) => {
    const others: Record<string, Record<string, unknown>> = {
      neither: {},
      'no iss': { aud },
      'no aud': { iss },
      'iss null': { iss: null, aud },
      'iss empty': { iss: '', aud },
      'iss of somebody else': { iss: 'https://other.example', aud },
      'iss with a slash more': { iss: `${iss}/`, aud },
      'iss in capitals': { iss: iss.toUpperCase(), aud },
      'iss a list': { iss: [iss], aud },
      'iss a number': { iss: 1, aud },
      'aud null': { iss, aud: null },
      'aud of somebody else': { iss, aud: 'other' },
      'aud with the right one inside': { iss, aud: 'my tasks' },
      'aud an empty list': { iss, aud: [] },
      'aud a list of others': { iss, aud: ['other', 'my tasks'] },
      'aud a list in a list': { iss, aud: [[aud]] },
      'aud an object': { iss, aud: { tasks: true } },
      exchanged: { iss: aud, aud: iss }
    }
    for (const [name, claims] of Object.entries(others)) {
      const answer = await list(app, await sign({ sub: 'alice', ...claims } as never))
      t.equal(answer.status, 401, name)
      t.strictSame(answer.json, REFUSED, name)
      t.equal(answer.headers['www-authenticate'], BAD_TOKEN, name)
    }
  })
})

t.test('user ids', async (t) => {
  const app = await startApp(t)
  const port = await listen(app)

  t.test('any text of 1 to 255 characters is valid', async (t) => {
    const ids = [
      'a',
      'a/b',
      'a b',
      ' ',
      '%2f',
      '%',
      'a%20b',
      'a+b',
      '*',
      '?',
      '#',
      '?status=all',
      ';',
      ':userId',
      '..',
      '.',
      '\\',
      '\n',
      'constructor',
      '__proto__',
      'null',
      'auth0|5f7c8ec7c33c6c004bbafe82',
      'ä',
      'a'.repeat(255),
      '😀'.repeat(255)
    ]
    for (const id of ids) {
      const name = JSON.stringify(id.slice(0, 40))
      const authorization = `Bearer ${await sign({ sub: id })}`
      const path = `/api/${encodeURIComponent(id)}/tasks`
      const client = await clientOf(app, id)
      // A client that normalises paths, like inject, cannot send these two.
      if (!['.', '..'].includes(id)) {
        t.equal((await client('POST', '', { title: 'mine' })).json.user_id, id, name)
      }
      const { status, text } = await send(port, 'GET', path, { authorization })
      t.equal(status, 200, name)
      t.strictSame(
        JSON.parse(text).map(({ user_id }: { user_id: string }) => user_id),
        ['.', '..'].includes(id) ? [] : [id],
        name
      )
    }
  })

  t.test('ids that look alike are different users', async (t) => {
    const pairs: [sub: string, path: string][] = [
      ['alice', 'Alice'],
      ['alice', 'alice%20'],
      ['alice', '%20alice'],
      ['alice', 'alice%00'],
      ['alice', '%61lice%2f'],
      ['alice', 'alic'],
      ['ä'.normalize('NFC'), encodeURIComponent('ä'.normalize('NFD'))],
      ['ä'.normalize('NFD'), encodeURIComponent('ä'.normalize('NFC'))],
      ['%2f', '%2f'],
      ['/', '%252f'],
      ['a b', 'a+b'],
      ['ſ', 's'],
      ['*', 'alice'],
      [':userId', 'alice']
    ]
    for (const [sub, path] of pairs) {
      const authorization = `Bearer ${await sign({ sub })}`
      const { status, text } = await send(port, 'GET', `/api/${path}/tasks`, { authorization })
      t.equal(status, 403, `${sub} at ${path}`)
      t.equal(JSON.parse(text).code, 'forbidden')
    }
    const authorization = `Bearer ${await sign({ sub: 'alice' })}`
    t.equal((await send(port, 'GET', '/api/%61lic%65/tasks', { authorization })).status, 200, 'decoded once')
  })
})
