import { spawnSync } from 'node:child_process'

// The longest form. It uses a new seed unless the environment has one.
const { FUZZ_REQUESTS = '20000', FUZZ_SEED = String(Math.trunc(Math.random() * 2 ** 31)) } = process.env
const files = ['openapi', 'framing'].map((name) => `test/fuzz/${name}.long.test.ts`)
const { status } = spawnSync('npm', ['test', '--', '--timeout=3600', '--jobs=1', ...files], {
  stdio: 'inherit',
  shell: true,
  env: { ...process.env, FUZZ_REQUESTS, FUZZ_SEED }
})
process.exitCode = status ?? 1
