import { hookImports, resolveDrizzle } from '../../src/quick-imports.js'
import t from '../support/tap.js'

const DRIZZLE = 'file:///app/node_modules/drizzle-orm/pg-core/index.js'

t.test('relative imports of drizzle-orm need no package.json', async (t) => {
  const next = () => t.fail('resolved by Node') && {}
  t.strictSame(resolveDrizzle('../sql/sql.js', { parentURL: DRIZZLE }, next), {
    url: 'file:///app/node_modules/drizzle-orm/sql/sql.js',
    format: 'module',
    shortCircuit: true
  })
})

t.test('Node resolves all other imports', async (t) => {
  for (const [specifier, parentURL] of [
    ['postgres', DRIZZLE],
    ['drizzle-orm', 'file:///app/dist/db/tasks.js'],
    ['./index.js', 'file:///app/node_modules/drizzle-orm-extra/index.js'],
    ['./index.js', 'file:///app/dist/db/tasks.js'],
    ['file:///app/dist/src/server.js', undefined]
  ] as const) {
    const context = parentURL === undefined ? {} : { parentURL }
    const resolved = { url: 'file:///resolved.js' }
    const next = (...asked: unknown[]) => {
      t.strictSame(asked, [specifier, context])
      return resolved
    }
    t.equal(resolveDrizzle(specifier, context, next), resolved, specifier)
  }
})

t.test('it is only used where Node has hooks', async (t) => {
  t.doesNotThrow(hookImports)
  await t.resolves(import('drizzle-orm/pg-core'))
})
