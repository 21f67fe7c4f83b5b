import type { Test } from 'tap'

export interface Clock {
  /** In seconds, as tokens have it. */
  now(): number
  advance(milliseconds: number): void
}

/** Stops `Date.now()`, which every check of a token's and a key's age reads, until the test ends. */
export function stopClock(t: Test): Clock {
  const real = Date.now
  let now = real()
  Date.now = () => now
  t.teardown(() => {
    Date.now = real
  })
  return {
    now: () => now / 1000,
    advance: (milliseconds) => {
      now += milliseconds
    }
  }
}
