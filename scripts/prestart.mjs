import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

// npm start runs this first. It compiles what changed since the last start. NODE_ENV=production makes npm leave out the
// compiler: then what was built before is started.

const pathOf = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url))
const compiler = pathOf('node_modules/typescript/bin/tsc')
const isBuilt = existsSync(pathOf('dist/src/server.js'))

if (existsSync(compiler)) {
  if (!isBuilt) console.error('Compiling. This takes some seconds, once.')
  const { status } = spawnSync(process.execPath, [compiler, '-b', pathOf('tsconfig.build.json')], {
    stdio: 'inherit'
  })
  process.exitCode = status ?? 1
} else if (!isBuilt) {
  console.error(
    'The service is not built, and the compiler is not installed: npm leaves it out when NODE_ENV is production. ' +
      'Run: npm ci --include=dev && npm start'
  )
  process.exitCode = 1
}
