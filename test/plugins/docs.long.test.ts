import { emptyDatabase } from '../support/databases.js'
import { startProcess } from '../support/process.js'
import { SECRET, sign } from '../support/sign.js'
import t from '../support/tap.js'

t.test('the page may call the API', async (t) => {
  const authorization = `Bearer ${await sign({ sub: 'alice' })}`
  /** True if a browser lets a page of this origin read the answer. */
  const isShown = async (api: string, origin: string) => {
    const url = `${api}/api/alice/tasks`
    const preflight = await fetch(url, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'GET',
        'access-control-request-headers': 'authorization'
      }
    })
    const answer = await fetch(url, { headers: { origin, authorization } })
    t.equal(answer.status, 200)
    const allowed = [preflight, answer].map(
      ({ headers }) => headers.get('access-control-allow-origin') === origin
    )
    t.equal(allowed[0], allowed[1], 'the preflight says the same')
    return allowed[0]
  }

  t.test('outside production, even if CORS_ORIGIN lists others', async (t) => {
    const env = { JWT_SECRET: SECRET, DATABASE_URL: await emptyDatabase(t) }
    const { api, ops } = await (
      await startProcess(t, { ...env, CORS_ORIGIN: 'https://app.example.com' })
    ).ready()
    t.equal(await isShown(api, 'https://app.example.com'), true)
    t.equal(await isShown(api, ops), true)
    const named = [api, ops].map((url) => url.replace('127.0.0.1', 'localhost')) as [string, string]
    t.equal(await isShown(...named), true)
    t.equal(await isShown(api, ops.replace('127.0.0.1', 'evil.example')), false, 'another host')
    t.equal(await isShown(api, api), false, 'another port')
    t.equal(await isShown(api, ops.replace('http:', 'https:')), false, 'another scheme')
  })

  t.test('in production only if CORS_ORIGIN lists it', async (t) => {
    const env = { NODE_ENV: 'production', JWT_SECRET: SECRET, DATABASE_URL: await emptyDatabase(t) }
    const { api, ops } = await (
      await startProcess(t, { ...env, CORS_ORIGIN: 'https://app.example.com' })
    ).ready()
    t.equal(await isShown(api, 'https://app.example.com'), true)
    t.equal(await isShown(api, ops), false)
  })
})
