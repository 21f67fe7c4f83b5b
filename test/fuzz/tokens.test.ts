import {
  constants,
  createHash,
  createPublicKey,
  type KeyObject,
  privateEncrypt,
  sign as signWith
} from 'node:crypto'
import { expectProblem, request, SECRET } from '../support/api.js'
import { startKeyServer } from '../support/key-server.js'
import t, { type Test } from '../support/tap.js'
import { compact, hmac, makeKey, part, type Signer, type Source, startSources } from './key-sources.js'

// The attacks of RFC 8725, and the cases of Project Wycheproof for JWS, whose vectors sign texts that are no claims.
// Cases in plugins/auth.test.ts and auth-jwks.test.ts are not repeated.

const CLAIMS = { sub: 'alice', exp: Math.floor(Date.now() / 1000) + 3600 }
const ZERO: Signer = () => Buffer.alloc(64)

/** Tokens of one kind. The valid ones show that the others are refused for the right reason. */
interface Kind {
  opens: Record<string, string>
  refused: Record<string, string>
}

const get = ({ app }: Source, token: string) =>
  request(app, 'GET', '/api/alice/tasks', undefined, { authorization: `Bearer ${token}` })

async function check(t: Test, source: Source, { opens, refused }: Kind): Promise<void> {
  for (const [name, token] of Object.entries(opens)) t.equal((await get(source, token)).status, 200, name)
  for (const [name, token] of Object.entries(refused)) {
    const answer = await get(source, token)
    expectProblem(t, answer, 'unauthorized', name)
    t.equal(answer.headers['www-authenticate'], 'Bearer realm="tasks", error="invalid_token"', name)
  }
  t.ok(Object.keys(opens).length > 0 && Object.keys(refused).length > 0)
}

/** Every mixture of upper and lower case of a word. */
const spellings = (word: string): string[] =>
  [...word].reduce<string[]>(
    (all, letter) => all.flatMap((one) => [one + letter, one + letter.toUpperCase()]),
    ['']
  )

const named = <T>(values: readonly T[], make: (value: T) => string) =>
  Object.fromEntries(
    values.map((value) => [JSON.stringify(value)?.slice(0, 60) ?? String(value), make(value)])
  )

const good = ({ header, sign }: Source) => compact(header, CLAIMS, sign)

const kinds: Record<string, (source: Source, attacker: Attacker) => Kind> = {
  'no algorithm at all (RFC 8725, 2.1)': (source) => {
    const { header, sign } = source
    const nones = [...spellings('none'), ' none', 'none ', 'none\0', 'ｎone']
    const make = (signer: Signer) => (alg: string) => compact({ ...header, alg }, CLAIMS, signer)
    return {
      opens: { 'the algorithm of the key': good(source) },
      refused: {
        ...prefixed(
          'unsigned',
          named(
            nones,
            make(() => Buffer.alloc(0))
          )
        ),
        ...prefixed('signed with the right key', named(nones, make(sign))),
        ...prefixed('with zeros', named(nones, make(ZERO)))
      }
    }
  },

  'other algorithms for the same key (RFC 8725, 3.1)': (source) => {
    const { header, sign, privateKey: key } = source
    const pss =
      (bits: number): Signer =>
      (input) =>
        signWith(`sha${bits}`, input, {
          key: key as KeyObject,
          padding: constants.RSA_PKCS1_PSS_PADDING,
          saltLength: bits / 8
        })
    const rsa =
      (bits: number): Signer =>
      (input) =>
        signWith(`sha${bits}`, input, key as KeyObject)
    const ecdsa =
      (bits: number): Signer =>
      (input) =>
        signWith(`sha${bits}`, input, { key: key as KeyObject, dsaEncoding: 'ieee-p1363' })
    const others: Record<string, Record<string, Signer>> = {
      HS256: { HS384: hmac(SECRET, 'sha384'), HS512: hmac(SECRET, 'sha512'), HS1: hmac(SECRET, 'sha1') },
      RS256: { RS384: rsa(384), RS512: rsa(512), RS1: rsa(1), PS384: pss(384), PS512: pss(512) },
      ES256: { ES384: ecdsa(384), ES512: ecdsa(512), ES256K: ecdsa(256) },
      EdDSA: { Ed448: sign, eddsa: sign }
    }
    return {
      opens: { 'its own': good(source) },
      refused: Object.fromEntries(
        Object.entries(others[source.alg] as Record<string, Signer>).map(([alg, signer]) => [
          alg,
          compact({ ...header, alg }, CLAIMS, signer)
        ])
      )
    }
  },

  'keys that the token brings along (RFC 8725, 2.7 and 3.10)': (source, { url, keys }) => {
    const { header, sign } = source
    const key = keys[source.alg]
    const offers: Record<string, object> = {
      jwk: { jwk: key?.jwk },
      'jwk, and no kid': { jwk: key?.jwk, kid: undefined },
      'jwk with a kid of its own': { jwk: { ...key?.jwk, kid: 'mine' }, kid: 'mine' },
      jku: { jku: url },
      'jku with an @': { jku: url.replace('http://', 'http://trusted.example@') },
      x5u: { x5u: url },
      x5c: { x5c: [Buffer.from('a certificate').toString('base64')] },
      'x5c and x5t': { x5c: [Buffer.from('a certificate').toString('base64')], x5t: 'eA', 'x5t#S256': 'eA' },
      'iss as an issuer to be asked': { kid: url }
    }
    const claims = { ...CLAIMS, iss: new URL('/', url).href }
    const signer = key?.sign ?? hmac('mine')
    return {
      opens: Object.fromEntries(
        Object.entries(offers)
          .filter(([, offer]) => !('kid' in offer))
          .map(([name, offer]) => [
            `${name}, beside the right signature`,
            compact({ ...header, ...offer }, claims, sign)
          ])
      ),
      refused: Object.fromEntries(
        Object.entries(offers).map(([name, offer]) => [
          name,
          compact({ ...header, ...offer }, claims, signer)
        ])
      )
    }
  },

  'names of keys': (source, { keys }) => {
    const { header, sign, alg } = source
    const kids: unknown[] = [
      '../../../../dev/null',
      '/dev/null',
      '..\\..\\win.ini',
      "' union select 'x' --",
      "x'; drop table tasks; --",
      '',
      ' ',
      '\0',
      `${alg}\0`,
      alg.toLowerCase(),
      'a'.repeat(8_000),
      '__proto__',
      'constructor',
      'prototype',
      'toString',
      'hasOwnProperty',
      '0',
      0,
      1,
      -1,
      1e300,
      true,
      null,
      [],
      [alg],
      {},
      { toString: alg },
      { kid: alg },
      'http://127.0.0.1:1/',
      'file:///dev/null',
      '| sleep 5',
      '$(sleep 5)',
      '%00'
    ]
    const empty = hmac('')
    const stranger = keys[alg]?.sign ?? empty
    const unsigned = named(kids, (kid) => compact({ ...header, kid }, CLAIMS, stranger))
    const ignored = source.jwk === undefined
    const signed = named(kids, (kid) => compact({ ...header, kid }, CLAIMS, sign))
    return {
      // With a secret the kid is ignored.
      opens: ignored ? signed : { 'its own': good(source) },
      refused: {
        ...prefixed('signed with another key', unsigned),
        ...prefixed(
          'signed with an empty secret',
          named(kids, (kid) => compact({ alg: 'HS256', kid }, CLAIMS, empty))
        ),
        ...(ignored ? {} : prefixed('signed with the right key', signed)),
        'twice, the last one of nobody': compact(
          `{"alg":"${alg}","kid":"${alg}","kid":"nobody"}`,
          CLAIMS,
          ignored ? empty : sign
        )
      }
    }
  },

  'members that are there twice (RFC 7515, section 4: the last counts, or none)': (source) => {
    const {
      header: { alg, kid },
      sign
    } = source
    const name = kid === undefined ? '' : `,"kid":"${kid}"`
    const { exp } = CLAIMS
    return {
      opens: {
        'alg: none, then its own': compact(`{"alg":"none","alg":"${alg}"${name}}`, CLAIMS, sign),
        'exp: past, then to come': compact({ alg, kid }, `{"sub":"alice","exp":1,"exp":${exp}}`, sign),
        'escapes in names': compact(
          `{"\\u0061lg":"${alg}"${name}}`,
          `{"\\u0073ub":"alice","exp":${exp}}`,
          sign
        )
      },
      refused: {
        'alg: its own, then none': compact(`{"alg":"${alg}","alg":"none"${name}}`, CLAIMS, sign),
        'alg: its own, then none, spelt with escapes': compact(
          `{"alg":"${alg}","\\u0061lg":"none"${name}}`,
          CLAIMS,
          () => Buffer.alloc(0)
        ),
        'alg in a __proto__': compact(`{"__proto__":{"alg":"${alg}"}${name}}`, CLAIMS, sign),
        'exp: to come, then past': compact({ alg, kid }, `{"sub":"alice","exp":${exp},"exp":1}`, sign),
        'sub: hers, then nothing': compact({ alg, kid }, `{"sub":"alice","exp":${exp},"sub":""}`, sign),
        'exp in a __proto__': compact({ alg, kid }, `{"sub":"alice","__proto__":{"exp":${exp}}}`, sign),
        'sub in a constructor': compact(
          { alg, kid },
          `{"exp":${exp},"constructor":{"prototype":{"sub":"alice"}}}`,
          sign
        )
      }
    }
  },

  'rules that nobody here knows (RFC 7515, 4.1.11, and RFC 7797)': (source) => {
    const { header, sign } = source
    const raw = `${part({ ...header, b64: false, crit: ['b64'] })}.${JSON.stringify(CLAIMS)}`
    const crits: unknown[] = [['b64'], ['exp'], ['alg'], ['x', 'y'], [], 'b64', {}, [null], [''], 1, true]
    return {
      opens: {
        'a member that need not be known': compact({ ...header, x: 1 }, CLAIMS, sign),
        'typ and cty': compact({ ...header, typ: 'JWT', cty: 'JSON' }, CLAIMS, sign)
      },
      refused: {
        ...prefixed(
          'crit',
          named(crits, (crit) => compact({ ...header, crit, b64: true, exp: CLAIMS.exp }, CLAIMS, sign))
        ),
        'b64 false, and the payload as it is': `${raw}.${sign(Buffer.from(raw)).toString('base64url')}`,
        'b64 false, detached': `${part({ ...header, b64: false, crit: ['b64'] })}..${sign(Buffer.from(raw)).toString('base64url')}`
      }
    }
  },

  'other shapes': (source) => {
    const { header, sign } = source
    const token = good(source)
    const [head, payload, signature] = token.split('.') as [string, string, string]
    return {
      opens: { 'three parts': token },
      refused: {
        'a token in a token': compact({ ...header, cty: 'JWT' }, token, sign),
        'a token in a text in a token': compact({ ...header, cty: 'JWT' }, JSON.stringify(token), sign),
        'five parts, as if encrypted': [part({ alg: 'dir', enc: 'A128GCM' }), '', ...token.split('.')].join(
          '.'
        ),
        'five parts, key wrapped': [
          part({ alg: 'PBES2-HS256+A128KW', enc: 'A128CBC-HS256', p2c: 2 ** 31, p2s: 'eA' }),
          'eA',
          'eA',
          'eA',
          'eA'
        ].join('.'),
        'three parts, compressed': compact(
          { ...header, alg: 'dir', enc: 'A128GCM', zip: 'DEF' },
          CLAIMS,
          sign
        ),
        'the JSON form': JSON.stringify({ payload, protected: head, signature }),
        'the general JSON form': JSON.stringify({ payload, signatures: [{ protected: head, signature }] }),
        'a dot before': `.${token}`,
        'a dot after': `${token}.`,
        'a dot in between': `${head}..${payload}.${signature}`,
        'a part after': `${token}.${signature}`,
        'ten thousand dots': '.'.repeat(10_000),
        'a megabyte of one letter': 'A'.repeat(1_000_000),
        'a megabyte of header': `${'A'.repeat(1_000_000)}.${payload}.${signature}`,
        'a megabyte of payload': `${head}.${'A'.repeat(1_000_000)}.${signature}`,
        'a megabyte of signature': `${head}.${payload}.${'A'.repeat(1_000_000)}`,
        'ten thousand brackets': compact(header, '['.repeat(10_000), sign),
        'the header and payload of others': `${payload}.${head}.${signature}`,
        'quotes around it': `"${token}"`,
        'percent-encoded': token.replaceAll('.', '%2e')
      }
    }
  },

  'other alphabets than base64url (RFC 7515, section 2)': (source) => {
    const { header, sign } = source
    const signed = (head: string, payload: string) =>
      `${head}.${payload}.${sign(Buffer.from(`${head}.${payload}`)).toString('base64url')}`
    const padded = (json: object) => {
      const text = JSON.stringify(json)
      return Buffer.from(text.length % 3 === 0 ? `${text} ` : text).toString('base64')
    }
    // Its base64 has a slash or a plus sign.
    const special = { ...CLAIMS, x: '???>>>~~~' }
    const ordinary = Buffer.from(JSON.stringify(special)).toString('base64').replace(/=+$/, '')
    t.match(ordinary, /[+/]/)
    const token = good(source)
    const withSpecial = compact(header, special, (input) => sign(input))
    const [head, , signature] = token.split('.') as [string, string, string]
    return {
      opens: {
        'the same claims in base64url': withSpecial,
        'white space in the JSON': compact(` ${JSON.stringify(header)}\n`, CLAIMS, sign)
      },
      refused: {
        'a payload in base64': signed(part(header), ordinary),
        'padding in the header': signed(padded(header), part(CLAIMS)),
        'padding in the payload': signed(part(header), padded(CLAIMS)),
        'padding after the signature': `${token}=`,
        'much padding after the signature': `${token}====`,
        'a percent-encoded line break in the payload': signed(part(header), `${part(CLAIMS)}%0a`),
        'a character of no alphabet in the payload': signed(part(header), `${part(CLAIMS)}!`),
        'a character of no alphabet in the header': signed(`${part(header)}~`, part(CLAIMS)),
        'a character of no alphabet in the signature': `${token}*`,
        'a signature in hexadecimal': `${head}.${part(CLAIMS)}.${Buffer.from(signature, 'base64url').toString('hex')}`
      }
    }
  },

  'payloads and times': (source) => {
    const { header, sign } = source
    const exp = (value: string) => compact(header, `{"sub":"alice","exp":${value}}`, sign)
    return {
      opens: {
        'exp far away': exp('99999999999999'),
        'exp with an exponent': exp('4e9'),
        'sub with an escape': compact(header, `{"exp":${CLAIMS.exp},"sub":"\\u0061lice"}`, sign)
      },
      refused: {
        ...prefixed(
          'exp',
          named(
            [
              '-1',
              '-0',
              '0',
              '-9e99',
              '1e999',
              '-1e999',
              '0x7fffffff',
              'NaN',
              'Infinity',
              '"NaN"',
              '"9999999999"',
              '[9999999999]',
              '{"valueOf":9999999999}',
              'null',
              'true',
              '""',
              '01',
              '1_000_000_000_0',
              '9999999999n'
            ],
            exp
          )
        ),
        'a payload in UTF-16': compact(header, Buffer.from(JSON.stringify(CLAIMS), 'utf16le'), sign),
        'two payloads': compact(header, `${JSON.stringify(CLAIMS)}${JSON.stringify(CLAIMS)}`, sign),
        'a comment in the payload': compact(header, `/**/${JSON.stringify(CLAIMS)}`, sign),
        'single quotes': compact(header, `{'sub':'alice','exp':${CLAIMS.exp}}`, sign)
      }
    }
  },

  'signatures that are none': (source) => {
    const { header, sign } = source
    const token = good(source)
    const right = Buffer.from(token.split('.')[2] as string, 'base64url')
    const instead = (signature: Buffer) => compact(header, CLAIMS, () => signature)
    const flipped = Buffer.from(right)
    flipped[0] = (flipped[0] as number) ^ 1
    const reversed = Buffer.from(right).reverse()
    return {
      opens: { 'the right one': token },
      refused: {
        none: instead(Buffer.alloc(0)),
        'one byte': instead(right.subarray(0, 1)),
        'cut by one byte': instead(right.subarray(0, -1)),
        'without its first byte': instead(right.subarray(1)),
        'a zero more': instead(Buffer.concat([right, Buffer.alloc(1)])),
        'a zero before': instead(Buffer.concat([Buffer.alloc(1), right])),
        twice: instead(Buffer.concat([right, right])),
        zeros: instead(Buffer.alloc(right.length)),
        ones: instead(Buffer.alloc(right.length, 0xff)),
        'one bit changed': instead(flipped),
        reversed: instead(reversed),
        'of a header without alg': compact({ ...header, alg: undefined }, CLAIMS, sign),
        'of other claims': `${token.slice(0, token.lastIndexOf('.'))}.${compact(header, { ...CLAIMS, sub: 'bob' }, sign).split('.')[2]}`,
        'HMAC with an empty secret': compact(header, CLAIMS, hmac('')),
        'a plain hash': compact(header, CLAIMS, (input) => createHash('sha256').update(input).digest())
      }
    }
  }
}

const prefixed = (prefix: string, tokens: Record<string, string>) =>
  Object.fromEntries(Object.entries(tokens).map(([name, token]) => [`${prefix}: ${name}`, token]))

interface Attacker {
  url: string
  keys: Record<string, Awaited<ReturnType<typeof makeKey>>>
}

t.test('tokens', async (t) => {
  const sources = await startSources(t)
  const keys = Object.fromEntries(
    await Promise.all(['RS256', 'ES256', 'EdDSA'].map(async (alg) => [alg, await makeKey(alg)] as const))
  )
  const server = await startKeyServer(
    t,
    Object.values(keys).map(({ jwk }) => jwk)
  )

  for (const source of sources) {
    for (const [kind, make] of Object.entries(kinds)) {
      t.test(`${source.alg}: ${kind}`, (t) => check(t, source, make(source, { url: server.url, keys })))
    }
  }

  t.test('no URL in a token was fetched', async (t) => {
    t.strictSame(server.requests, [])
    t.equal((await fetch(server.url)).status, 200)
    t.equal(server.requests.length, 1, 'where requests are counted')
  })

  for (const source of sources.filter(({ jwk }) => jwk)) {
    t.test(`${source.alg}: a public key used as a secret (RFC 8725, section 2.1)`, async (t) => {
      const { jwk, header } = source
      const key = createPublicKey({ key: jwk as never, format: 'jwk' })
      const pem = (type: 'spki' | 'pkcs1') => key.export({ type: type as 'spki', format: 'pem' }) as string
      const raw = (name: 'n' | 'x' | 'y' | 'e') => Buffer.from(jwk?.[name] ?? '', 'base64url')
      const types = source.alg === 'RS256' ? (['spki', 'pkcs1'] as const) : (['spki'] as const)
      const secrets: Record<string, string | Buffer> = {
        ...Object.fromEntries(
          types.flatMap((type): [string, string | Buffer][] => {
            const der = key.export({ type: type as 'spki', format: 'der' })
            return [
              [`PEM, ${type}`, pem(type)],
              [`PEM with CRLF, ${type}`, pem(type).replaceAll('\n', '\r\n')],
              [`PEM without its last line break, ${type}`, pem(type).trimEnd()],
              [`PEM without line breaks, ${type}`, pem(type).replaceAll('\n', '')],
              [`DER, ${type}`, der],
              [`DER in base64, ${type}`, der.toString('base64')],
              [`DER in hexadecimal, ${type}`, der.toString('hex')]
            ]
          })
        ),
        'JWK as published': JSON.stringify(jwk),
        'JWK with its own members only': JSON.stringify(key.export({ format: 'jwk' })),
        'JWK, indented': JSON.stringify(jwk, null, 2),
        'the whole key set': JSON.stringify({ keys: [jwk] }),
        'the bytes of n or x': jwk?.n ? raw('n') : raw('x'),
        'the text of n or x': (jwk?.n ?? jwk?.x) as string,
        'x and y': Buffer.concat([raw('x'), raw('y')]),
        'an uncompressed point': Buffer.concat([Buffer.from([4]), raw('x'), raw('y')]),
        'its kid': source.header.kid as string,
        nothing: ''
      }
      const hashes = ['256', '384', '512']
      const refused = Object.fromEntries(
        Object.entries(secrets).flatMap(([name, secret]) =>
          hashes.map((bits) => [
            `HS${bits} with ${name}`,
            compact({ ...header, alg: `HS${bits}` }, CLAIMS, hmac(secret, `sha${bits}`))
          ])
        )
      )
      await check(t, source, { opens: { 'its own algorithm': good(source) }, refused })
    })
  }

  t.test('ES256: invalid numbers in a signature (CVE-2022-21449, RFC 7518, section 3.4)', async (t) => {
    const source = sources.find(({ alg }) => alg === 'ES256') as Source
    const ORDER = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex')
    const zero = Buffer.alloc(32)
    const one = Buffer.concat([Buffer.alloc(31), Buffer.from([1])])
    const token = good(source)
    const right = Buffer.from(token.split('.')[2] as string, 'base64url')
    const [r, s] = [right.subarray(0, 32), right.subarray(32)]
    const numbers = {
      0: zero,
      1: one,
      n: ORDER,
      'n + 1': plus(ORDER, 1n),
      'n - 1': plus(ORDER, -1n),
      'all ones': Buffer.alloc(32, 0xff)
    }
    const pairs = Object.entries(numbers).flatMap(([a, first]) => [
      ...Object.entries(numbers).map(
        ([b, second]) => [`r = ${a}, s = ${b}`, Buffer.concat([first, second])] as const
      ),
      [`r = ${a}`, Buffer.concat([first, s])] as const,
      [`s = ${a}`, Buffer.concat([r, first])] as const
    ])
    const instead = (signature: Buffer) => compact(source.header, CLAIMS, () => signature)
    const refused = {
      ...Object.fromEntries(pairs.map(([name, signature]) => [name, instead(signature)])),
      'in DER': compact(source.header, CLAIMS, (input) =>
        signWith('sha256', input, source.privateKey as never)
      ),
      'zeros in DER': instead(Buffer.from('3006020100020100', 'hex')),
      'for another hash': compact(source.header, CLAIMS, (input) =>
        signWith('sha384', input, { key: source.privateKey as never, dsaEncoding: 'ieee-p1363' })
      ),
      'r and s with zeros before, as for P-521': instead(
        Buffer.concat([Buffer.alloc(34), r, Buffer.alloc(34), s])
      ),
      's before r': instead(Buffer.concat([s, r]))
    }
    await check(t, source, { opens: { 'a right signature': token }, refused })
  })

  t.test('EdDSA: invalid numbers in a signature (RFC 8032, section 5.1.7)', async (t) => {
    const source = sources.find(({ alg }) => alg === 'EdDSA') as Source
    const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n
    const token = good(source)
    const right = Buffer.from(token.split('.')[2] as string, 'base64url')
    const [r, s] = [right.subarray(0, 32), right.subarray(32)]
    const identity = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)])
    const larger = plus(Buffer.from(s).reverse(), ORDER).reverse()
    const instead = (signature: Buffer) => compact(source.header, CLAIMS, () => signature)
    const refused = {
      'S + L': instead(Buffer.concat([r, larger])),
      'S = 0': instead(Buffer.concat([r, Buffer.alloc(32)])),
      'R the identity, S = 0': instead(Buffer.concat([identity, Buffer.alloc(32)])),
      'R of no point': instead(Buffer.concat([Buffer.alloc(32, 0xff), s]))
    }
    await check(t, source, { opens: { 'a right signature': token }, refused })
  })

  t.test('RS256: paddings that are not PKCS #1 v1.5 (RFC 8017, section 8.2.2)', async (t) => {
    const source = sources.find(({ alg }) => alg === 'RS256') as Source
    const key = source.privateKey as never
    const size = Buffer.from(source.jwk?.n as string, 'base64url').length
    const digestInfo = (hash: Buffer, prefix = '3031300d060960864801650304020105000420') =>
      Buffer.concat([Buffer.from(prefix, 'hex'), hash])
    const sha256 = (input: Buffer) => createHash('sha256').update(input).digest()
    /** 00 01 FF … FF 00 and the rest, with the given garbage at its end. */
    const block = (rest: Buffer, { type = 1, fill = 0xff, garbage = 0, separator = 0 } = {}) =>
      Buffer.concat([
        Buffer.from([0, type]),
        Buffer.alloc(size - 3 - rest.length - garbage, fill),
        Buffer.from([separator]),
        rest,
        Buffer.alloc(garbage, 0xaa)
      ])
    const encrypted = (make: (hash: Buffer) => Buffer) =>
      compact(source.header, CLAIMS, (input) =>
        privateEncrypt({ key, padding: constants.RSA_NO_PADDING }, make(sha256(input)))
      )
    const refused = {
      'garbage after a short padding (Bleichenbacher, 2006)': encrypted((hash) =>
        block(digestInfo(hash), { garbage: 100 })
      ),
      'one byte of garbage': encrypted((hash) => block(digestInfo(hash), { garbage: 1 })),
      'block type 0': encrypted((hash) => block(digestInfo(hash), { type: 0 })),
      'block type 2': encrypted((hash) => block(digestInfo(hash), { type: 2 })),
      'a padding of zeros': encrypted((hash) => block(digestInfo(hash), { fill: 0 })),
      'a padding of other bytes': encrypted((hash) => block(digestInfo(hash), { fill: 0xfe })),
      'no separator': encrypted((hash) => block(digestInfo(hash), { separator: 0xff })),
      'the hash alone': encrypted((hash) => block(hash)),
      'the name of SHA-1': encrypted((hash) => block(digestInfo(hash, '302d300906052b0e03021a05000420'))),
      'the name of SHA-512': encrypted((hash) =>
        block(digestInfo(hash, '3031300d060960864801650304020305000420'))
      ),
      'a length in BER': encrypted((hash) =>
        block(digestInfo(hash, '308131300d060960864801650304020105000420'))
      ),
      'another hash': compact(source.header, CLAIMS, (input) => signWith('sha512', input, key)),
      'SHA-1': compact(source.header, CLAIMS, (input) => signWith('sha1', input, key)),
      PSS: compact(source.header, CLAIMS, (input) =>
        signWith('sha256', input, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 })
      ),
      one: compact(source.header, CLAIMS, () => plus(Buffer.alloc(size), 1n)),
      'the modulus': compact(source.header, CLAIMS, () => Buffer.from(source.jwk?.n as string, 'base64url'))
    }
    const byHand = encrypted((hash) => block(digestInfo(hash)))
    t.equal(byHand, good(source), 'the padding made here is the right one')
    await check(t, source, { opens: { 'the right padding': byHand }, refused })
  })
})

/** Adds a number to the number in these bytes, most significant first, with the same length. */
function plus(bytes: Buffer, addend: bigint): Buffer {
  const sum = BigInt(`0x${bytes.toString('hex')}`) + addend
  return Buffer.from(
    sum
      .toString(16)
      .padStart(bytes.length * 2, '0')
      .slice(-bytes.length * 2),
    'hex'
  )
}
