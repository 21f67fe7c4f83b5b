import { AsyncResource } from 'node:async_hooks'
import dns from 'node:dns'
import { promisify } from 'node:util'

type Callback = (error: NodeJS.ErrnoException | null, address: unknown, family?: number) => void

/**
 * Keeps names that cannot be resolved from holding up other names, and the end of the process.
 *
 * A look-up is a call of the C library in one of Node's threads, at most two at a time, and it cannot be cancelled. Each
 * attempt to reach the key server, the collector or the database would start one more. By default one takes 5 seconds for
 * each name server that is dead, and as long again.
 *
 * So attempts share the running look-up of their name, and the C library waits 1 second for each answer, three times. The
 * attempts themselves time out after about 3 seconds. `RES_OPTIONS` in the environment is kept: see resolv.conf(5). Must be
 * called before the first look-up.
 */
export function limitLookups(): void {
  process.env.RES_OPTIONS ??= 'timeout:1 attempts:3'
  const { lookup } = dns
  const running = new Map<string, Callback[]>()

  function shared(name: string, options: dns.LookupOptions | Callback, callback?: Callback): void {
    if (typeof options === 'function') {
      shared(name, {}, options)
      return
    }
    const key = JSON.stringify([name, options])
    const bound = AsyncResource.bind(callback as Callback)
    const waiting = running.get(key)
    if (waiting) {
      waiting.push(bound)
      return
    }
    const callbacks = [bound]
    running.set(key, callbacks)
    try {
      lookup(name, options, (error: NodeJS.ErrnoException | null, ...answer: [unknown, number?]) => {
        running.delete(key)
        for (const answered of callbacks) answered(error, ...answer)
      })
    } catch (error) {
      // An option that is wrong.
      running.delete(key)
      throw error
    }
  }

  // net and http call it as a property of the module.
  Object.assign(dns, { lookup: Object.assign(shared, { [promisify.custom]: promisify(lookup) }) })
}
