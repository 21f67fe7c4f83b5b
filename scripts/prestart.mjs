import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

// npm start runs this first. It compiles the files that changed since the last start. With NODE_ENV=production npm does
// not install the compiler, and the existing build is started.

const pathOf = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url))

if (existsSync(pathOf('node_modules/typescript'))) {
  process.exitCode = await build(pathOf('tsconfig.build.json'))
} else if (!existsSync(pathOf('dist/src/server.js'))) {
  console.error(
    'The service is not built, and the compiler is not installed: npm leaves it out when NODE_ENV is production. ' +
      'Run: npm ci --include=dev && npm start'
  )
  process.exitCode = 1
}

/** Does the same as `tsc -b`, which cannot print a line before it compiles. */
async function build(config) {
  const { default: ts } = await import('typescript')
  const format = {
    getCanonicalFileName: (name) => name,
    getCurrentDirectory: ts.sys.getCurrentDirectory,
    getNewLine: () => '\n'
  }
  const report = (diagnostic) => console.error(ts.formatDiagnostics([diagnostic], format).trimEnd())
  const host = ts.createSolutionBuilderHost(ts.sys, undefined, report)
  const next = ts.createSolutionBuilder(host, [config], {}).getNextInvalidatedProject()
  if (next === undefined) return 0
  if (next.kind === ts.InvalidatedProjectKind.Build)
    console.error('Compiling the sources, which takes some seconds.')
  return next.done()
}
