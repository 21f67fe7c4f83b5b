import root, { type TAP, type Test } from 'tap'

// Test files take `t` from here instead of from tap: several files run in one process, each within a test of its own.

let current: TAP | Test = root

/** Makes this test the `t` of the files that are imported next. */
export function runWithin(test: Test): void {
  current = test
}

export type { Test }
export { current as default }
