import { once } from 'node:events'

/**
 * Runs work with teardowns like a test's, in reverse order.
 *
 * @throws Error on SIGINT and SIGTERM, after the teardowns
 */
export async function withTeardown<T>(
  work: (t: { teardown(end: () => unknown): void }) => Promise<T>
): Promise<T> {
  const ends: (() => unknown)[] = []
  const over = new AbortController()
  const stopped = async (name: string): Promise<never> => {
    await once(process, name, over)
    throw new Error(`stopped by ${name}`)
  }
  const signals = Promise.race([stopped('SIGINT'), stopped('SIGTERM')])
  try {
    return await Promise.race([work({ teardown: (end) => ends.push(end) }), signals])
  } finally {
    // After a signal the work may still add teardowns.
    for (let end = ends.pop(); end !== undefined; end = ends.pop()) await end()
    over.abort()
  }
}
