/** Runs work with teardowns like a test's, in reverse order. */
export async function withTeardown<T>(
  work: (t: { teardown(end: () => unknown): void }) => Promise<T>
): Promise<T> {
  const ends: (() => unknown)[] = []
  try {
    return await work({ teardown: (end) => ends.push(end) })
  } finally {
    for (const end of ends.reverse()) await end()
  }
}
