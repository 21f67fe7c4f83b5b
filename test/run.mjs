import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

// npm test [-- <test file …> <options of tap …>]: runs the compiled form of these test files, or of all, under tap.
const OUT = 'dist-test'

const args = process.argv.slice(2)
const isTest = (arg) => arg.endsWith('.test.ts')
const compiled = (file) => join(OUT, file.replace(/\.ts$/, '.js'))
const named = args.filter(isTest)
const files =
  named.length > 0
    ? named
    : readdirSync('test', { recursive: true })
        .filter(isTest)
        .map((file) => join('test', file))
        .sort()

const { status } = spawnSync(
  process.execPath,
  [
    join('node_modules', 'tap', 'dist', 'esm', 'run.mjs'),
    ...args.filter((arg) => !isTest(arg)),
    ...files.map(compiled)
  ],
  // Even with its coverage off, tap would measure and report that of what it runs before the tests.
  { stdio: 'inherit', env: { ...process.env, _TAPJS_PROCESSINFO_COVERAGE_: '0' } }
)
process.exitCode = status ?? 1
