import { inspect, isDeepStrictEqual } from 'node:util'
import type { Test } from './tap.js'

/**
 * Checks many cases in one assertion. The first wrong case fails it, and is shown with its expected value.
 *
 * @param check the actual and the expected value of a case
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
