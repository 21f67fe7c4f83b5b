import { fileURLToPath } from 'node:url'

/** The folder of the checkout. Tests run compiled, in a folder below it. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
