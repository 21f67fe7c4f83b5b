import { setTimeout as sleep } from 'node:timers/promises'
import { type CryptoKey, createLocalJWKSet, errors, exportSPKI } from 'jose'
import { Unavailable } from '../errors/catalogue.js'
import { fetchKeySet, nameOf } from './fetch-key-set.js'

/** How long a request waits for keys: for its turn and for one fetch. */
const MAX_WAIT_MS = 2_900
/** How many requests may wait for keys at once. */
const MAX_WAITING = 1_000
/** The oldest that fetched keys may become: the longest that a removed key is still accepted. */
const MAX_AGE_MS = 240_000
/** The least time between the beginnings of two fetches, so that traffic cannot amplify an outage of the key server. */
const FETCH_INTERVAL_MS = 1_000
/** How many fetches tokens with unknown keys may cause in a row, and how long it takes until one more may follow. */
const EXTRA_FETCHES = 5
const EXTRA_FETCH_MS = 5_000
/** How many keys are tried for one token, each at the cost of a signature. */
const MAX_KEYS_TRIED = 5
/** RFC 7518, section 3.3. */
const MIN_RSA_BITS = 2_048

/** The two members of a token's header that say which keys fit. Without `kid` every key for `alg` does. */
export type KeyHint = { alg: string; kid?: string }

/**
 * The keys at a URL: fetched when they are needed, kept for `MAX_AGE_MS`, fetched again for a token that none of them
 * fits.
 *
 * `createRemoteJWKSet` of jose does not do this. After each fetch it refuses unknown keys for a while, it does not say
 * what the key server answered, and one entry that is no object spoils its whole set.
 */
export function remoteKeys(url: string, onFetched: (outcome: 'success' | 'failure') => void) {
  const name = `JWKS_URL ${nameOf(url)}`
  let find: ReturnType<typeof createLocalJWKSet> | undefined
  let fetchedAt = Number.NEGATIVE_INFINITY
  let begunAt = Number.NEGATIVE_INFINITY
  /** Why the last fetch failed; undefined when it did not. */
  let failure: unknown
  let running: Promise<void> | undefined
  /** A fetch that will begin as soon as it may, for all who ask in the meantime. */
  let scheduled: Promise<void> | undefined
  let extraPaidUntil = Number.NEGATIVE_INFINITY
  let waiting = 0
  const pems = new WeakMap<CryptoKey, Promise<string>>()

  function fetchKeys(): Promise<void> {
    running ??= (async () => {
      const now = performance.now()
      begunAt = now
      try {
        find = createLocalJWKSet(await fetchKeySet(url))
        fetchedAt = now
        failure = undefined
        onFetched('success')
      } catch (error) {
        failure = error
        onFetched('failure')
        throw error
      } finally {
        running = undefined
      }
    })()
    return running
  }

  async function fetchExtra(): Promise<void> {
    await sleep(Math.max(0, begunAt + FETCH_INTERVAL_MS - performance.now()))
    scheduled = undefined
    await fetchKeys()
    // A fetch that failed told nothing about the token.
    extraPaidUntil = Math.max(extraPaidUntil, performance.now()) + EXTRA_FETCH_MS
  }

  function refuseAfterFailure(): void {
    if (failure !== undefined && performance.now() < begunAt + FETCH_INTERVAL_MS) {
      throw new Unavailable({ cause: failure })
    }
  }

  async function waitFor(fetching: Promise<void>, since: number): Promise<void> {
    // Whoever does not wait for it must not leave it without a listener.
    fetching.catch(() => {})
    if (waiting >= MAX_WAITING) {
      throw new Unavailable({ cause: new Error(`${name}: ${waiting} requests wait for it already`) })
    }
    waiting++
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`${name} did not answer in time`)),
        since + MAX_WAIT_MS - performance.now()
      )
    })
    try {
      await Promise.race([fetching, late])
    } catch (error) {
      throw new Unavailable({ cause: error })
    } finally {
      clearTimeout(timer)
      waiting--
    }
  }

  async function fitting(hint: KeyHint): Promise<string[]> {
    const found = new Set<string>()
    for await (const key of candidates(hint)) {
      if (isStrong(key)) found.add(await pemOf(key))
      if (found.size === MAX_KEYS_TRIED) break
    }
    return [...found]
  }

  async function* candidates(hint: KeyHint): AsyncGenerator<CryptoKey> {
    try {
      if (find) yield await find(hint)
    } catch (error) {
      // Otherwise no key fits, or the one that does cannot be used.
      if (error instanceof errors.JWKSMultipleMatchingKeys) yield* error
    }
  }

  function pemOf(key: CryptoKey): Promise<string> {
    // jose hands out the same object until the next fetch, so each key is converted once.
    let pem = pems.get(key)
    if (pem === undefined) {
      pem = exportSPKI(key)
      pems.set(key, pem)
    }
    return pem
  }

  return {
    /**
     * The public keys, in PEM, that may have signed such a token. None is there twice.
     *
     * @param since when the request came, as `performance.now()`
     * @throws Unavailable when there are no keys young enough and none can be fetched
     */
    async find(hint: KeyHint, since: number): Promise<string[]> {
      if (performance.now() >= fetchedAt + MAX_AGE_MS) {
        if (running === undefined) refuseAfterFailure()
        await waitFor(fetchKeys(), since)
      }
      return fitting(hint)
    },

    /**
     * Waits for newer keys, for a token that none of those at hand fits. The caller looks again, and asks again.
     *
     * @returns false when nothing new is to be expected: they are newer than the request, or were fetched too often
     * @throws Unavailable when they cannot be fetched, and the token may therefore be a valid one
     */
    async renew(since: number): Promise<boolean> {
      if (fetchedAt >= since) return false
      if (running === undefined) {
        refuseAfterFailure()
        const budgetIsUsedUp = extraPaidUntil > performance.now() + (EXTRA_FETCHES - 1) * EXTRA_FETCH_MS
        if (scheduled === undefined && budgetIsUsedUp) return false
        scheduled ??= fetchExtra()
      }
      await waitFor(running ?? (scheduled as Promise<void>), since)
      return true
    },

    /** Fetches the keys and returns what an operator must know: that they cannot be read, or that none can be used. */
    async check(algorithms: string[]): Promise<string | undefined> {
      try {
        await fetchKeys()
      } catch (error) {
        return (error as Error).message
      }
      for (const alg of algorithms) {
        if ((await fitting({ alg })).length > 0) return undefined
      }
      return `${name} has no public key for ${algorithms.join(', ')}`
    }
  }
}

function isStrong({ algorithm }: CryptoKey): boolean {
  const { modulusLength } = algorithm as { modulusLength?: number }
  return modulusLength === undefined || modulusLength >= MIN_RSA_BITS
}
