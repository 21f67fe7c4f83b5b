// npm run test:browser: starts the example as `npm run example` does, on free ports and with empty databases, and uses
// its page in Chromium. Ends with "N passed, N failed".
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'
import { fileURLToPath } from 'node:url'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const EXAMPLE = join(HERE, '..')

const chromium = process.env.CHROMIUM_PATH ?? found('chromium') ?? found('google-chrome')
if (chromium === undefined || !existsSync(chromium)) {
  console.error(
    'There is no Chromium. On Debian: apt-get install chromium. Otherwise CHROMIUM_PATH names the program.'
  )
  process.exit(1)
}
process.env.CHROMIUM_PATH = chromium

if (!existsSync(join(EXAMPLE, 'node_modules/playwright-core'))) {
  console.log('Installing the packages of the example. This takes a minute, once.')
  const { status } = spawnSync('npm', ['ci', '--include=dev', '--no-audit', '--no-fund'], {
    cwd: EXAMPLE,
    stdio: 'inherit'
  })
  if (status !== 0) process.exit(1)
}

let passed = 0
let failed = 0
const tests = run({ files: [join(HERE, 'page.test.js')], timeout: 600_000 })
tests.on('test:pass', ({ details, nesting }) => {
  if (nesting === 0 && details.type !== 'suite') passed++
})
tests.on('test:fail', ({ details, nesting }) => {
  if (nesting === 0 && details.type !== 'suite') failed++
})
tests.on('end', () => {
  console.log(`\n${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1
})
tests.compose(new spec()).pipe(process.stdout)

/** @param {string} program */
function found(program) {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .map((folder) => join(folder, program))
    .find((file) => existsSync(file))
}
