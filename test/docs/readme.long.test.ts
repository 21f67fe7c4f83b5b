import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { STATUS_OF } from '../../plugins/errors/catalogue.js'
import { Environment } from '../../src/config.js'
import { onEachDatabase, SECRET } from '../support/api.js'
import { blocksOf, codeOf, rowsOf } from '../support/markdown.js'
import { ROOT } from '../support/root.js'
import t from '../support/tap.js'

const CURL_SHIM = fileURLToPath(new URL('../support/curl.js', import.meta.url))
const END = '--- end of block ---'

/** Replaces ids and times, which differ in each run. */
const normal = (text: string) =>
  text
    .replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '<id>')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')
    .trim()

onEachDatabase(async (t, app) => {
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  // In this order: the walk-through begins and ends with an empty list.
  for (const [page, least] of [
    ['docs/walkthrough.md', 8],
    ['README.md', 1]
  ] as const) {
    t.test(`the commands of ${page} print the output on the page`, async (t) => {
      const blocks = blocksOf(page)
      const commands = blocks.filter(({ language }) => language === 'sh')
      const shown = blocks.filter(({ language }) => language === 'json')
      t.equal(commands.length, shown.length, 'every command is followed by its answer')
      t.ok(commands.length >= least)

      const script = [
        'set -e',
        // A replacement for curl, if the machine has none.
        `command -v curl >/dev/null || curl() { "${process.execPath}" "${CURL_SHIM}" "$@"; }`,
        ...commands.map(({ code }) => `${code}\necho; echo '${END}'`)
      ]
      const { stdout } = await promisify(execFile)(
        'sh',
        ['-c', script.join('\n').replaceAll('http://127.0.0.1:3000', url)],
        {
          cwd: ROOT,
          env: { PATH: process.env.PATH, HOME: process.env.HOME, JWT_SECRET: SECRET, NO_PROXY: '127.0.0.1' }
        }
      )
      t.strictSame(
        stdout.split(END).slice(0, -1).map(normal),
        shown.map(({ code }) => normal(code))
      )
    })
  }
})

t.test('these commands to start and to test are checked elsewhere', async (t) => {
  const consoles = blocksOf('README.md').filter(({ language }) => language === 'console')
  t.strictSame(
    consoles.map(({ code }) => code),
    ['$ npm ci && npm start\n', '$ npm ci && npm test\n']
  )
})

/** A default as an operator writes it. */
const textOf = (value: unknown) => (value === undefined ? undefined : String(value))

t.test('the table of variables and .env.example have the variables and defaults of the code', async (t) => {
  const documented = rowsOf('docs/configuration.md', ['variable', 'default', 'meaning']).flatMap(
    ([names, defaults]) => codeOf(names).map((name, index) => [name, codeOf(defaults)[index]])
  )
  const { properties } = Environment
  const inCode = Object.entries(properties).map(([name, schema]) => [name, textOf(schema.default)])
  t.strictSame(documented.sort(), inCode.sort())

  const example = readFileSync(join(ROOT, '.env.example'), 'utf8')
  const lines = [...example.matchAll(/^#([A-Z_]+)=(.*)$/gm)] as unknown as [string, string, string][]
  // NODE_ENV cannot be set there.
  const settable = Object.keys(properties).filter((name) => name !== 'NODE_ENV')
  t.strictSame(lines.map(([, name]) => name).sort(), settable.sort())
  for (const [, name, value] of lines) {
    const { default: standard } = properties[name as keyof typeof properties]
    if (standard !== undefined) t.equal(value, textOf(standard), name)
  }
})

t.test('the table of errors has the errors of the code', async (t) => {
  const documented = rowsOf('docs/api.md', ['status', '`code`', 'when']).map(([status, code]) => [
    codeOf(code)[0] as string,
    Number(status)
  ])
  t.strictSame(Object.fromEntries(documented), STATUS_OF)
})
