import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { loadConfig } from '../../src/config.js'
import { startApp } from '../support/api.js'
import { AUDIENCE, startOidcIssuer } from '../support/oidc-issuer.js'
import { ROOT } from '../support/root.js'
import { sign } from '../support/sign.js'
import t, { type Test } from '../support/tap.js'

// Follows docs/issuers.md for the issuers that can run here. The browser tests follow the section on Better Auth,
// because they have that package.

const PAGE = readFileSync(join(ROOT, 'docs/issuers.md'), 'utf8')

/** The first block of a section. */
function blockOf(section: string): string {
  const [, text = ''] = PAGE.split(`\n## ${section}\n`)
  const [, code] = /^```(?:ini|sh)\n(.*?)^```$/ms.exec(text.split('\n## ')[0] as string) ?? []
  if (code === undefined) throw new Error(`docs/issuers.md has no block under ${section}`)
  return code
}

async function listen(t: Test, env: Record<string, string>) {
  const lines: string[] = []
  const app = await startApp(
    t,
    'postgres',
    { JWT_SECRET: '', LOG_LEVEL: 'info', ...env },
    {
      logStream: { write: (line: string) => void lines.push(line) }
    }
  )
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  return {
    lines,
    list: (token: string) =>
      fetch(`${url}/api/alice/tasks`, { headers: { authorization: `Bearer ${token}` } })
  }
}

/** The page's settings, with the URL of this issuer. */
const settingsFor = (issuer: string) =>
  parseEnv(blockOf('oidc-provider').replaceAll('https://sso.example.com', issuer)) as Record<string, string>

for (const alg of ['RS256', 'ES256', 'EdDSA']) {
  t.test(
    `tokens of oidc-provider are accepted with the page's settings, also after rotations: ${alg}`,
    async (t) => {
      const issuer = await startOidcIssuer(t, alg)
      const { list, lines } = await listen(t, settingsFor(issuer.url))

      const token = await issuer.token(AUDIENCE)
      t.match(decodeProtectedHeader(token), { alg, typ: 'at+jwt' })
      t.match(decodeJwt(token), { iss: issuer.url, aud: AUDIENCE, sub: 'alice' })
      t.equal((await list(token)).status, 200)

      t.equal((await list(await issuer.token('https://other.example.com'))).status, 401, 'another audience')
      t.match(lines.at(-1), /"reason":"audience"/)
      t.equal((await list(await issuer.token())).status, 401, 'an opaque token')
      t.match(lines.at(-1), /"reason":"malformed"/)

      // Each rotation comes directly after the fetch of the previous key.
      for (const next of ['EdDSA', 'RS256', 'ES256']) {
        await issuer.rotate(next)
        const rotated = await issuer.token(AUDIENCE)
        t.equal((await list(rotated)).status, 200, `rotated to ${next}`)
      }
      t.equal(issuer.keyRequests, 4, 'one fetch at the start, and one for each rotation')
    }
  )
}

t.test('tokens with a new key are accepted at once, with a rotation in each second', async (t) => {
  const issuer = await startOidcIssuer(t, 'ES256')
  const { list } = await listen(t, settingsFor(issuer.url))
  const statuses = new Set<number>()
  for (let second = 0; second < 4; second++) {
    await issuer.rotate('ES256')
    const token = await issuer.token(AUDIENCE)
    const answers = await Promise.all(Array.from({ length: 20 }, () => list(token)))
    for (const { status } of answers) statuses.add(status)
  }
  t.strictSame([...statuses], [200])
})

t.test('the issuer is compared exactly: localhost is not 127.0.0.1', async (t) => {
  const issuer = await startOidcIssuer(t, 'ES256')
  const { list, lines } = await listen(t, {
    ...settingsFor(issuer.url),
    JWT_ISSUER: issuer.url.replace('127.0.0.1', 'localhost')
  })
  t.equal((await list(await issuer.token(AUDIENCE))).status, 401)
  t.match(lines.at(-1), /"reason":"issuer"/)
})

t.test('the secret that the page generates is accepted, and signs tokens', async (t) => {
  const [, expression] = /\$\(node -p "(.*)"\)/.exec(blockOf('A shared secret')) ?? []
  const secret = execFileSync(process.execPath, ['-p', expression as string], { encoding: 'utf8' }).trim()
  const { list } = await listen(t, { JWT_SECRET: secret })
  t.equal((await list(await sign({ sub: 'alice' }, secret))).status, 200)
  t.equal((await list(await sign({ sub: 'alice' }))).status, 401, 'another secret')
})

t.test('the service accepts every configuration on the page', async (t) => {
  const blocks = [...PAGE.matchAll(/^```ini\n(.*?)^```$/gms)].map(([, code]) => parseEnv(code as string))
  t.ok(blocks.length >= 9)
  for (const block of blocks) {
    t.equal(typeof block.JWKS_URL, 'string')
    t.doesNotThrow(() => loadConfig(block), `${block.JWKS_URL}`)
  }
})
