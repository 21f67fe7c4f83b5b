import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { clientOf, request, sign, startApp } from '../support/api.js'
import { failures, startKeyServer } from '../support/key-server.js'
import { scrape } from '../support/metrics.js'
import t from '../support/tap.js'

const COLLECTION = '/api/alice/tasks'
const REASONS = [
  'no_token',
  'no_bearer_token',
  'malformed',
  'algorithm',
  'critical_header',
  'unknown_key',
  'signature',
  'expired',
  'not_yet_valid',
  'issuer',
  'audience',
  'subject'
]

t.test('accepted tokens are counted by source, and refusals by reason', async (t) => {
  const app = await startApp(t)
  const alice = await clientOf(app, 'alice')
  const before = await scrape(app)
  for (const reason of REASONS) {
    t.equal(before.get(`auth_refusals_total{reason="${reason}"}`), 0, reason)
  }
  for (let times = 0; times < 3; times++) await alice('GET')
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
  await request(app, 'GET', COLLECTION)
  await request(app, 'GET', COLLECTION, undefined, bearer('x'))
  await request(app, 'GET', COLLECTION, undefined, bearer(await sign({ sub: 'alice', exp: 1 })))
  await request(app, 'GET', COLLECTION, undefined, bearer(await sign({ sub: 'alice', exp: 2 })))
  await request(app, 'GET', COLLECTION, undefined, { authorization: 'Basic x' })
  const after = await scrape(app)
  t.equal(after.get('auth_tokens_accepted_total{source="verified"}'), 1)
  t.equal(after.get('auth_tokens_accepted_total{source="cache"}'), 2)
  const refused = REASONS.flatMap((reason) => {
    const count = after.get(`auth_refusals_total{reason="${reason}"}`)
    return count ? [[reason, count]] : []
  })
  t.strictSame(Object.fromEntries(refused), { no_token: 1, no_bearer_token: 1, malformed: 1, expired: 2 })
})

t.test('fetches of keys are counted by outcome, and 503 answers without keys', async (t) => {
  const { privateKey, publicKey } = await generateKeyPair('EdDSA')
  const server = await startKeyServer(t, [{ ...(await exportJWK(publicKey)), kid: 'one', alg: 'EdDSA' }])
  server.answer = failures['answers 500'] as typeof server.answer
  const app = await startApp(t, 'postgres', { JWT_SECRET: '', JWKS_URL: server.url })
  const token = await new SignJWT({ sub: 'alice' })
    .setProtectedHeader({ alg: 'EdDSA', kid: 'one' })
    .setExpirationTime('1h')
    .sign(privateKey)
  const get = () => request(app, 'GET', COLLECTION, undefined, { authorization: `Bearer ${token}` })
  t.equal((await get()).status, 503)
  const failed = await scrape(app)
  t.ok((failed.get('auth_key_fetches_total{outcome="failure"}') ?? 0) > 0)
  t.equal(failed.get('auth_key_fetches_total{outcome="success"}'), 0)
  t.equal(failed.get('http_requests_shed_total{reason="keys"}'), 1)
  server.answer = (response, { keys }) => response.end(JSON.stringify({ keys }))
  while ((await get()).status !== 200);
  t.equal((await scrape(app)).get('auth_key_fetches_total{outcome="success"}'), 1)
})
