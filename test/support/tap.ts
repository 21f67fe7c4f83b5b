import root, { type TAP, type Test } from 'tap'

// Test files import `t` from here instead of from tap, because several files run in one process. Each file is a test
// of its own.

let current: TAP | Test = root

/** Makes this test the `t` of the files that are imported next. */
export function runWithin(test: Test): void {
  current = test
}

export type { Test }
export { current as default }
