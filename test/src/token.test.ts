import { decodeProtectedHeader, jwtVerify } from 'jose'
import { StartError } from '../../db/errors.js'
import type { AuthOptions } from '../../plugins/auth/options.js'
import { issueToken } from '../../src/token.js'
import { stopClock } from '../support/clock.js'
import t from '../support/tap.js'

const secret = 'ä secret that is not only ASCII ✓'
const auth: AuthOptions = { keys: { kind: 'secret', secret }, issuer: undefined, audience: undefined }

const claimsOf = async (token: string) => (await jwtVerify(token, Buffer.from(secret))).payload

t.test('a token has its user and times, and is signed with the secret', async (t) => {
  const token = await issueToken(auth, 'alice')
  t.strictSame(decodeProtectedHeader(token), { alg: 'HS256', typ: 'JWT' })
  const { iat, exp, ...rest } = await claimsOf(token)
  t.strictSame(rest, { sub: 'alice' })
  t.equal(Number(exp) - Number(iat), 3600, 'an hour unless said otherwise')
})

t.test('a token has the issuer and audience that the service requires', async (t) => {
  const token = await issueToken({ ...auth, issuer: 'https://issuer.example', audience: 'tasks' }, 'alice')
  t.match(await claimsOf(token), { iss: 'https://issuer.example', aud: 'tasks' })
})

t.test('the validity is a number and a unit', async (t) => {
  const clock = stopClock(t)
  for (const [ttl, seconds] of Object.entries({ '90s': 90, '15m': 900, '2h': 7200, '7d': 604_800 })) {
    const { exp } = await claimsOf(await issueToken(auth, 'alice', ttl))
    // jose counts in whole seconds, and its clock is not stopped.
    t.ok(Math.abs(Number(exp) - clock.now() - seconds) < 60, ttl)
  }
})

t.test('any other validity is refused in one line that shows it', async (t) => {
  for (const ttl of ['', '1', 'h', '-1h', '1.5h', '1h30m', ' 1h', '1 h', '1H', '1w', '1h\n', '1000000s']) {
    await t.rejects(
      issueToken(auth, 'alice', ttl),
      { constructor: StartError, message: /^--ttl must be .*such as 1h, not ".*"$/ },
      JSON.stringify(ttl)
    )
  }
})

t.test('no token is issued for keys of another issuer', async (t) => {
  const keys = { kind: 'jwks' as const, url: 'https://issuer.example/jwks' }
  await t.rejects(issueToken({ ...auth, keys }, 'alice'), {
    constructor: StartError,
    message: /^JWKS_URL is set/
  })
})
