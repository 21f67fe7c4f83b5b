import { existsSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { buildOps, urlOf } from '../../src/ops.js'
import { startApp } from '../support/api.js'
import { ROOT } from '../support/root.js'
import t, { type Test } from '../support/tap.js'

/** The files that a browser loads for the page at this address. */
async function loaded(url: string) {
  const page = await fetch(url)
  const html = await page.text()
  const named = [...html.matchAll(/<(?:script|link)[^>]* (?:src|href)="([^"]+)"/g)].map(([, file]) =>
    String(file)
  )
  const files = named.filter((file) => !file.startsWith('data:')).map((file) => new URL(file, page.url).href)
  const answers = await Promise.all(
    files.map(async (file) => {
      const answer = await fetch(file)
      return { file, status: answer.status, policy: policyOf(answer), text: await answer.text() }
    })
  )
  return { page, html, policy: policyOf(page), answers }
}

/** The sources of each directive. */
function policyOf({ headers }: Response): Record<string, string[]> {
  const directives = String(headers.get('content-security-policy')).split(';')
  return Object.fromEntries(
    directives.map((directive) => {
      const [name, ...sources] = directive.trim().split(/\s+/)
      return [name, sources]
    })
  )
}

/** The URLs of both listeners, each on a free port. */
async function listening(t: Test, host = '127.0.0.1', opsHost = '127.0.0.1') {
  const api = await startApp(t)
  await api.listenOnAll({ host, port: 0 })
  const ops = await buildOps(api)
  t.teardown(() => ops.close())
  await ops.listenOnAll({ host: opsHost, port: 0 })
  return { api: urlOf(api), ops: urlOf(ops) }
}

const portIn = (url: string) => new URL(url).port

t.test('the page', async (t) => {
  const { ops, api } = await listening(t)

  for (const path of ['/docs', '/docs/', '/docs?x=/', '/docs/?x']) {
    t.test(`at ${path} loads all its files from this server`, async (t) => {
      const { page, html, answers } = await loaded(`${ops}${path}`)
      t.equal(page.status, 200)
      t.match(page.headers.get('content-type'), /^text\/html/)
      t.match(html, /^<!DOCTYPE html>/)
      t.ok(answers.length >= 4)
      t.strictSame(
        answers.filter(({ file, status }) => status !== 200 || !file.startsWith(`${ops}/docs/`)),
        []
      )
    })
  }

  const { html, policy, answers } = await loaded(`${ops}/docs`)
  t.test('has a title, and fits the width of a phone', async (t) => {
    t.match(html, '<title>Tasks API</title>')
    t.match(html, /<meta name="viewport" content="width=device-width, initial-scale=1">/)
  })

  t.test('may load nothing from other servers, and call only the API', async (t) => {
    t.strictSame(policy['connect-src'], ["'self'", `http://*:${portIn(api)}`])
    const { 'connect-src': _, ...others } = policy
    t.strictSame(
      [...new Set(Object.values(others).flat())].sort(),
      ["'none'", "'self'", 'data:'],
      'neither https:, nor inline code, nor validator.swagger.io'
    )
    t.strictSame(policy['default-src'], ["'self'"])
    t.strictSame(policy['frame-ancestors'], ["'none'"])
    for (const answer of answers) t.strictSame(answer.policy, policy, answer.file)
  })

  t.test('is Swagger UI without its top bar', async (t) => {
    const scripts = answers.filter(({ file }) => file.endsWith('.js'))
    t.notOk(scripts.some(({ file }) => file.includes('standalone')))
    const own = scripts.find(({ file }) => file.endsWith('/page.js'))?.text
    t.match(own, 'validatorUrl: null')
    t.match(own, 'sessionStorage')
    t.notMatch(own, /localStorage[.[]|persistAuthorization:/, 'the token lasts as long as the tab')
  })

  t.test('links to the guides, whose links work', async (t) => {
    const seen = new Set<string>()
    const visit = async (url: string): Promise<void> => {
      if (seen.has(url)) return
      seen.add(url)
      const answer = await fetch(url)
      t.equal(answer.status, 200, url)
      const body = await answer.text()
      if (!/^text\/html/.test(answer.headers.get('content-type') ?? '')) return
      for (const [, link] of body.matchAll(/<(?:a|img)[^>]* (?:href|src)="([^"]+)"/g)) {
        const { origin, href, hash } = new URL(String(link), url)
        if (origin !== ops) continue
        const target = href.slice(0, href.length - hash.length)
        await visit(target)
        if (hash) t.match(await (await fetch(target)).text(), `id="${hash.slice(1)}"`, `${href} in ${url}`)
      }
    }
    await visit(`${ops}/docs`)
    t.ok(seen.has(`${ops}/docs/guides/README.md`))
    t.ok(seen.has(`${ops}/docs/guides/docs/issuers.md`))
    t.ok(seen.has(`${ops}/docs/guides/docs/decisions/README.md`))
    for (const url of seen) {
      const { pathname } = new URL(url)
      if (pathname.startsWith('/docs/guides/'))
        t.ok(existsSync(join(ROOT, pathname.slice('/docs/guides/'.length))))
    }
  })

  t.test('serves no other file of the project', async (t) => {
    for (const path of [
      'package.json',
      '.env',
      'src/app.ts',
      '..%2fpackage.json',
      'docs/..%2fpackage.json',
      'docs/no.md'
    ]) {
      t.equal((await fetch(`${ops}/docs/guides/${path}`)).status, 404, path)
    }
  })
})

t.test("the server in the document has the client's host name", async (t) => {
  const own = Object.values(networkInterfaces())
    .flat()
    .find((address) => address?.family === 'IPv4' && !address.internal)?.address
  const skip = own ? false : 'this machine has no other address'
  /** The server in the document for a client that uses the operations listener at `through`, and the API's port. */
  const serverOf = async (t: Test, host: string, opsHost: string, through: string) => {
    const { api, ops } = await listening(t, host, opsHost)
    const document = await (await fetch(`http://${through}:${portIn(ops)}/openapi.json`)).json()
    const [{ url }] = (document as { servers: [{ url: string }] }).servers
    return { url, port: portIn(api) }
  }

  t.test('where both listen on the same address', async (t) => {
    for (const name of ['127.0.0.1', 'localhost']) {
      const { url, port } = await serverOf(t, '127.0.0.1', '127.0.0.1', name)
      t.equal(url, `http://${name}:${port}`)
    }
  })

  t.test('where both listen on all addresses', { skip }, async (t) => {
    const { url, port } = await serverOf(t, '0.0.0.0', '0.0.0.0', String(own))
    t.equal(url, `http://${own}:${port}`)
  })

  t.test("the API's own address, if that is another", { skip }, async (t) => {
    const { url, port } = await serverOf(t, '127.0.0.1', '0.0.0.0', String(own))
    t.equal(url, `http://127.0.0.1:${port}`)
  })
})
