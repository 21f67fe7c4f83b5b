import module from 'node:module'

type Context = { parentURL?: string }
type Resolve = (specifier: string, context: Context, next: (s: string, c: Context) => object) => object

/**
 * Resolves drizzle-orm's own imports without its package.json. Node 22 and later parse the `exports` there again for
 * each of its modules. They have 170 KB, which takes 0.8 s of the start (nodejs/node issue 58126).
 */
export const resolveDrizzle: Resolve = (specifier, context, next) => {
  const { parentURL } = context
  if (!specifier.startsWith('.') || !parentURL?.includes('/node_modules/drizzle-orm/')) {
    return next(specifier, context)
  }
  return { url: new URL(specifier, parentURL).href, format: 'module', shortCircuit: true }
}

/** Has an effect on the modules that are imported afterwards. Node 20 has no hooks, and does not need them. */
export function hookImports(): void {
  const { registerHooks } = module as { registerHooks?(hooks: { resolve: Resolve }): void }
  registerHooks?.({ resolve: resolveDrizzle })
}
