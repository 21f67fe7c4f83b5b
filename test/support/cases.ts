import { inspect, isDeepStrictEqual } from 'node:util'
import type { Test } from './tap.js'

/**
 * Checks many cases as one assertion: a property, not a thousand lines of output. The first case that is wrong fails it,
 * and is shown with what was expected.
 *
 * @param check what was found for the case, and what must be
 */
export async function holdsFor<T>(
  t: Test,
  property: string,
  cases: Iterable<T>,
  check: (one: T) => Promise<[found: unknown, expected: unknown]>
): Promise<void> {
  let count = 0
  for (const one of cases) {
    const [found, expected] = await check(one)
    count++
    if (isDeepStrictEqual(found, expected)) continue
    t.strictSame(found, expected, `${property}; for ${inspect(one, { breakLength: Infinity })}`)
    return
  }
  t.ok(count > 0, `${property}; for ${count} cases`)
}
