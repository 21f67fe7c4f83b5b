// The page, the API and the issuer together, in a real browser.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import { parseEnv } from 'node:util'
import { chromium } from 'playwright-core'
import { startExample, TOKEN_SECONDS } from './example.js'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
/** A folder for screenshots; none by default. */
const { SCREENSHOTS } = process.env

/** @type {Awaited<ReturnType<typeof startExample>>} */
let example
/** @type {import('playwright-core').Browser} */
let browser

before(async () => {
  example = await startExample()
  // Chromium's sandbox does not work as root.
  browser = await chromium.launch({
    executablePath: /** @type {string} */ (process.env.CHROMIUM_PATH),
    args: process.getuid?.() === 0 ? ['--no-sandbox'] : []
  })
  if (SCREENSHOTS) mkdirSync(SCREENSHOTS, { recursive: true })
})
after(async () => {
  await browser?.close()
  await example?.stop()
})

let people = 0

/**
 * Somebody new, with a browser profile of their own, at the page.
 *
 * @param {import('node:test').TestContext} t
 * @param {import('playwright-core').BrowserContextOptions} [options]
 */
async function visit(t, options) {
  const context = await browser.newContext(options)
  t.after(() => context.close())
  const page = await context.newPage()
  await page.goto(example.page)
  return page
}

/** @param {Parameters<typeof visit>} visitor */
async function signUp(...visitor) {
  const page = await visit(...visitor)
  await page.getByRole('button', { name: 'Create an account' }).click()
  await page.getByLabel('Email').fill(`person-${people++}@example.com`)
  await page.getByLabel('Password').fill('correct horse battery')
  await page.getByRole('button', { name: 'Create account' }).click()
  await page.getByRole('heading', { name: 'My tasks' }).waitFor()
  return page
}

/** @typedef {import('playwright-core').Page} Page */

/** @param {Page} page @param {string} title */
async function add(page, title) {
  await page.getByLabel('New task').fill(title)
  await page.getByRole('button', { name: 'Add', exact: true }).click()
  await row(page, title).and(page.locator('[aria-busy=false]')).waitFor()
}

/** @param {Page} page */
const rows = (page) => page.getByRole('list', { name: 'Tasks' }).getByRole('listitem')

/** @param {Page} page @param {string} title */
const row = (page, title) => rows(page).filter({ hasText: title })

/** @param {Page} page */
const titles = (page) => page.locator('.tasks .title').allTextContents()

/** A token of the person at the page, as its code gets one. @param {Page} page @returns {Promise<string>} */
const tokenOf = (page) => page.evaluate(async () => (await (await fetch('/api/auth/token')).json()).token)

/** The header (0) or the claims (1) of a token. @param {string} token @param {number} index */
const partOf = (token, index) => JSON.parse(`${Buffer.from(token.split('.')[index] ?? '', 'base64url')}`)

/** @param {string} token @returns {string} */
const subOf = (token) => partOf(token, 1).sub

/** @param {Page} page */
async function personAt(page) {
  const token = await tokenOf(page)
  return { token, sub: subOf(token), tasks: `${example.api}/api/${encodeURIComponent(subOf(token))}/tasks` }
}

/**
 * Sends a request from the page, like a person in the browser's console.
 *
 * @param {Page} page @param {string} url @param {string} token
 */
const fetchFrom = (page, url, token) =>
  page.evaluate(
    ([url, token]) =>
      fetch(/** @type {string} */ (url), { headers: { authorization: `Bearer ${token}` } }).then(
        ({ status }) => status,
        (error) => `${error}`
      ),
    [url, token]
  )

test('two people work through the page, and each sees only their own tasks', async (t) => {
  const alice = await signUp(t)
  const bob = await signUp(t)
  await add(alice, 'Buy milk')
  await add(alice, 'Call the bank')
  await add(bob, 'Walk the dog')

  await alice.getByRole('checkbox', { name: 'Buy milk' }).check()
  await alice.getByText('1 of 2 to do').waitFor()
  await alice.getByRole('radio', { name: 'Pending' }).check()
  assert.deepEqual(await titles(alice), ['Call the bank'])
  await alice.getByRole('radio', { name: 'Completed' }).check()
  assert.deepEqual(await titles(alice), ['Buy milk'])
  await alice.getByRole('radio', { name: 'All' }).check()

  await alice.getByRole('button', { name: 'Edit Call the bank' }).click()
  const dialog = alice.getByRole('dialog', { name: 'Edit task' })
  await dialog.getByLabel('Title').fill('Call the bank at nine')
  await dialog.getByLabel('Description').fill('About the card')
  await dialog.getByRole('button', { name: 'Save' }).click()
  await row(alice, 'Call the bank at nine').filter({ hasText: 'About the card' }).waitFor()

  await bob.reload()
  await row(bob, 'Walk the dog').waitFor()
  assert.deepEqual(await titles(bob), ['Walk the dog'])
  await bob.getByRole('button', { name: 'Delete Walk the dog' }).click()
  await bob.getByText('Nothing to do yet').waitFor()

  // The service has the tasks that the pages showed.
  await alice.getByRole('checkbox', { name: 'Buy milk' }).and(alice.locator(':checked')).waitFor()
  await alice.reload()
  await row(alice, 'Buy milk').waitFor()
  assert.deepEqual(await titles(alice), ['Call the bank at nine', 'Buy milk'])
  await bob.reload()
  await bob.getByText('Nothing to do yet').waitFor()
})

test("a forged request for another person's tasks gets 403", async (t) => {
  const mallory = await signUp(t)
  const victim = await personAt(await signUp(t))
  const { token, tasks } = await personAt(mallory)
  assert.equal(await fetchFrom(mallory, tasks, token), 200)
  assert.equal(await fetchFrom(mallory, victim.tasks, token), 403)
})

test('the browser refuses an answer to a foreign origin', async (t) => {
  const page = await signUp(t)
  const { token, tasks } = await personAt(page)
  assert.equal(await fetchFrom(page, tasks, token), 200)

  const server = createServer((_, response) =>
    response.end('<!doctype html><title>Elsewhere</title>')
  ).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const elsewhere = await page.context().newPage()
  /** @type {string[]} */
  const errors = []
  elsewhere.on('console', (message) => errors.push(message.text()))
  await elsewhere.goto(`http://127.0.0.1:${port}`)
  assert.match(`${await fetchFrom(elsewhere, tasks, token)}`, /Failed to fetch/)
  assert.match(errors.join('\n'), /blocked by CORS policy/)
})

test('an expired token is replaced without a word, and an ended session leads to the sign-in', async (t) => {
  const page = await signUp(t)
  const ended = await signUp(t)
  await add(page, 'Before')
  await add(ended, 'Before')
  /** @type {number[]} */
  const statuses = []
  page.on('response', (response) => {
    if (response.url().startsWith(example.api) && response.request().method() !== 'OPTIONS') {
      statuses.push(response.status())
    }
  })
  await page.waitForTimeout((TOKEN_SECONDS + 6) * 1_000)

  await add(page, 'After')
  assert.deepEqual(statuses, [401, 201])
  assert.equal(await page.getByRole('alert').count(), 0)

  await ended.context().clearCookies()
  await ended.getByLabel('New task').fill('Signed out')
  await ended.getByRole('button', { name: 'Add', exact: true }).click()
  await ended.getByText('Your session has ended').waitFor()
  await ended.getByRole('heading', { name: 'Sign in to Tasks' }).waitFor()
})

test('a list of 2,000 tasks scrolls', async (t) => {
  const page = await signUp(t)
  const { tasks } = await personAt(page)
  for (let first = 0; first < 2_000; first += 100) {
    const authorization = `Bearer ${await tokenOf(page)}`
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, n) =>
        fetch(tasks, {
          method: 'POST',
          headers: { authorization, 'content-type': 'application/json' },
          body: JSON.stringify({ title: `Task ${first + n}` })
        })
      )
    )
    for (const { status } of answers) assert.equal(status, 201)
  }
  await page.reload()
  await page.getByText('2000 of 2000 to do').waitFor()
  assert.equal(await rows(page).count(), 2_000)
  const last = rows(page).last()
  assert.equal(await last.evaluate((row) => row.getBoundingClientRect().top > innerHeight), true)
  await page.mouse.move(400, 400)
  for (let turns = 0; turns < 100 && !(await isVisible(last)); turns++) await page.mouse.wheel(0, 10_000)
  assert.equal(await isVisible(last), true)
  await last.getByRole('checkbox').check()
  await page.getByText('1999 of 2000 to do').waitFor()
})

/** @param {import('playwright-core').Locator} locator */
const isVisible = (locator) =>
  locator.evaluate((element) => {
    const { top, bottom } = element.getBoundingClientRect()
    return top >= 0 && bottom <= innerHeight
  })

test('a lost answer on create makes one task', async (t) => {
  const page = await signUp(t)
  /** @type {(string | undefined)[]} */
  const keys = []
  await page.route(`${example.api}/**`, async (route) => {
    if (route.request().method() !== 'POST') return route.continue()
    keys.push(route.request().headers()['idempotency-key'])
    if (keys.length > 1) return route.continue()
    // The service has executed the request, and the answer is lost.
    const answer = await route.fetch()
    assert.equal(answer.status(), 201)
    await route.abort('connectionreset')
  })
  await add(page, 'Only once')
  assert.equal(keys.length, 2)
  assert.ok(keys[0])
  assert.equal(keys[1], keys[0])
  await page.reload()
  await row(page, 'Only once').waitFor()
  assert.equal(await rows(page).count(), 1)
})

test("docs/issuers.md has Better Auth's settings", async (t) => {
  const page = readFileSync(new URL('../../../docs/issuers.md', import.meta.url), 'utf8')
  const [, section = ''] = page.split('\n## Better Auth\n')
  const [, block = ''] = /^```ini\n(.*?)^```$/ms.exec(section) ?? []
  const settings = parseEnv(block.replaceAll('https://app.example.com', example.page))

  const token = await tokenOf(await signUp(t))
  const { keys } = await (await fetch(/** @type {string} */ (settings.JWKS_URL))).json()
  const { kid, alg } = partOf(token, 0)
  assert.equal(alg, 'EdDSA')
  assert.ok(keys.some((/** @type {{ kid: string }} */ key) => key.kid === kid))
  assert.equal(partOf(token, 1).iss, settings.JWT_ISSUER)
  assert.match(subOf(token), /^[A-Za-z0-9]{32}$/)
})

const SIZES = { phone: { width: 360, height: 740 }, desktop: { width: 1280, height: 800 } }

for (const [size, viewport] of Object.entries(SIZES)) {
  for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
    test(`axe finds nothing, ${size}, ${colorScheme}`, async (t) => {
      const options = { viewport, colorScheme, reducedMotion: /** @type {const} */ ('reduce') }
      /** @param {Page} page @param {string} name */
      const check = async (page, name) => {
        if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/${name}-${size}-${colorScheme}.png` })
        await page.evaluate(AXE)
        // @ts-expect-error axe is a global of the page.
        const { violations } = await page.evaluate(() => axe.run())
        const found = violations.map(
          (/** @type {{ id: string, nodes: { html: string }[] }} */ { id, nodes }) => [
            id,
            nodes.map(({ html }) => html)
          ]
        )
        assert.deepEqual(found, [], name)
        assert.equal(
          await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth),
          true,
          `${name}: nothing is wider than the window`
        )
      }
      const stranger = await visit(t, options)
      await stranger.getByRole('heading', { name: 'Sign in to Tasks' }).waitFor()
      await check(stranger, 'sign-in')
      const page = await signUp(t, options)
      await check(page, 'empty')
      await add(page, 'Buy milk')
      await add(
        page,
        'A long title that does not fit into one line of a phone, and says too much about one thing'
      )
      await page.getByRole('checkbox', { name: 'Buy milk' }).check()
      await page.getByText('1 of 2 to do').waitFor()
      await check(page, 'tasks')
      await page.getByRole('button', { name: 'Edit Buy milk' }).click()
      await page
        .getByRole('dialog', { name: 'Edit task' })
        .getByLabel('Title')
        .and(page.locator(':enabled'))
        .waitFor()
      await check(page, 'edit')
      await page.getByRole('button', { name: 'Cancel' }).click()
      await page.context().setOffline(true)
      await page.getByText('You are offline').waitFor()
      await check(page, 'offline')
    })
  }
}
