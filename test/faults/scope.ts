/** Does work in a scope as tests have one: what it starts ends with it, the latest first. */
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
