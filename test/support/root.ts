import { fileURLToPath } from 'node:url'

/** The root of the checkout. Compiled tests are in a folder below it. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
