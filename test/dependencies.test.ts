import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './support/root.js'
import t from './support/tap.js'

interface Package {
  version?: string
  integrity?: string
  hasInstallScript?: boolean
}

const read = (file: string) => JSON.parse(readFileSync(join(ROOT, file), 'utf8'))

for (const folder of ['', 'bench/', 'examples/sdk/', 'examples/web/']) {
  t.test(`${folder}package-lock.json`, async (t) => {
    const { packages }: { packages: Record<string, Package> } = read(`${folder}package-lock.json`)
    const installed = Object.entries(packages).filter(([path]) => path !== '')
    t.ok(installed.length > 20)

    t.test('has an exact version and an integrity hash for every package', async (t) => {
      t.strictSame(
        installed.filter(([, { version, integrity }]) => !version || !/^sha512-/.test(integrity ?? '')),
        []
      )
    })

    // npm runs only install scripts that allowScripts allows. Each needs a decision.
    t.test('has no install script that package.json neither allows nor denies', async (t) => {
      const { allowScripts = {} }: { allowScripts?: Record<string, boolean> } = read(`${folder}package.json`)
      const named = new Set(
        installed
          .filter(([, { hasInstallScript }]) => hasInstallScript)
          .map(([path]) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length))
      )
      t.strictSame(Object.keys(allowScripts).sort(), [...named].sort())
      const allowed = Object.keys(allowScripts).filter((name) => allowScripts[name])
      t.strictSame(allowed, [])
    })
  })
}
