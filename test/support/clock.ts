import type { Test } from './tap.js'

export interface Clock {
  /** In seconds, as in tokens. */
  now(): number
  advance(milliseconds: number): void
  /** Sets the system's clock, `Date.now()`, forward or back. */
  step(milliseconds: number): void
  /** In milliseconds of real time. */
  passed(): number
}

/**
 * Stops `Date.now()`, by which tokens expire, until the test ends. `performance.now()`, by which keys expire, almost
 * stops: it still increases. Timers are not affected.
 */
export function stopClock(t: Test): Clock {
  const date = Date.now
  const passed = performance.now.bind(performance)
  let advanced = 0
  let stepped = 0
  const [startDate, start] = [date(), passed()]
  Date.now = () => startDate + advanced + stepped
  performance.now = () => start + advanced + (passed() - start) / 1_000
  t.teardown(() => {
    Date.now = date
    performance.now = passed
  })
  return {
    now: () => Date.now() / 1000,
    advance: (milliseconds) => {
      advanced += milliseconds
    },
    step: (milliseconds) => {
      stepped += milliseconds
    },
    passed
  }
}
