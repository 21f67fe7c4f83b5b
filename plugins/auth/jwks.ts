import { setTimeout as sleep } from 'node:timers/promises'
import { type CryptoKey, createLocalJWKSet, errors, exportSPKI } from 'jose'
import { Unavailable } from '../errors/catalogue.js'
import { fetchKeySet, nameOf } from './fetch-key-set.js'

/** Longest time that a request waits for keys, in milliseconds: `FETCH_INTERVAL_MS`, and 1,900 ms for the fetch. */
const MAX_WAIT_MS = 2_900
/** Number of requests that may wait for keys at the same time. */
const MAX_WAITING = 1_000
/** Keys older than this, in milliseconds, are fetched again. After that a removed key verifies no more tokens. */
const MAX_AGE_MS = 240_000
/** Minimum time between the starts of two fetches, so that traffic cannot amplify an outage of the key server. */
const FETCH_INTERVAL_MS = 1_000
/** Tokens with unknown keys may cause this many fetches in a row, and then one more in each EXTRA_FETCH_MS. */
const EXTRA_FETCHES = 5
const EXTRA_FETCH_MS = 5_000
/** Most keys that are tried for one token. Each try costs the check of a signature. */
const MAX_KEYS_TRIED = 5
/** RFC 7518, section 3.3. */
const MIN_RSA_BITS = 2_048

/** The members of a token's header that select keys. Without `kid`, every key of the type for `alg` fits. */
export type KeyHint = { alg: string; kid?: string }

/**
 * Fetches the keys at a URL when they are needed, and keeps them for `MAX_AGE_MS`. A token that fits none of them causes
 * another fetch.
 *
 * jose's `createRemoteJWKSet` is not enough. After each fetch it refuses unknown keys for a while. Its errors do not
 * contain the key server's answer. One entry that is no object makes it refuse the whole set.
 */
export function remoteKeys(url: string, onFetched: (outcome: 'success' | 'failure') => void) {
  const name = `JWKS_URL ${nameOf(url)}`
  let find: ReturnType<typeof createLocalJWKSet> | undefined
  let fetchedAt = Number.NEGATIVE_INFINITY
  /** The same time by the system's clock, which goes on while the machine is suspended. */
  let fetchedOn = 0
  let begunAt = Number.NEGATIVE_INFINITY
  /** The error of the last fetch; undefined if that succeeded. */
  let failure: unknown
  let running: Promise<void> | undefined
  /** The next extra fetch. It waits for the minimum time between fetches, and all requests share it. */
  let scheduled: Promise<void> | undefined
  /**
   * Limits extra fetches. Each one moves this time forward by `EXTRA_FETCH_MS`. None begins while it is more than
   * `EXTRA_FETCHES - 1` of these steps after the present.
   */
  let extraFetchesUntil = Number.NEGATIVE_INFINITY
  let waiting = 0
  const pems = new WeakMap<CryptoKey, Promise<string>>()

  function fetchKeys(): Promise<void> {
    running ??= (async () => {
      const now = performance.now()
      const date = Date.now()
      begunAt = now
      try {
        find = createLocalJWKSet(await fetchKeySet(url))
        fetchedAt = now
        fetchedOn = date
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
    // A failed fetch throws above and does not count: it tells nothing about the token.
    extraFetchesUntil = Math.max(extraFetchesUntil, performance.now()) + EXTRA_FETCH_MS
  }

  function areOld(): boolean {
    const age = Math.max(performance.now() - fetchedAt, Math.abs(Date.now() - fetchedOn))
    return age >= MAX_AGE_MS
  }

  function refuseAfterFailure(): void {
    if (failure !== undefined && performance.now() < begunAt + FETCH_INTERVAL_MS) {
      throw new Unavailable({ cause: failure })
    }
  }

  async function waitFor(fetching: Promise<void>, since: number): Promise<void> {
    // The request may end before the fetch. Then the fetch's rejection must still have a handler.
    fetching.catch(() => {})
    if (waiting >= MAX_WAITING) {
      throw new Unavailable({ cause: new Error(`${name}: ${waiting} requests wait for it already`) })
    }
    waiting++
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`${name} did not answer in time`)),
        Math.max(0, since + MAX_WAIT_MS - performance.now())
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
      // Any other error means that no usable key fits.
      if (error instanceof errors.JWKSMultipleMatchingKeys) yield* error
    }
  }

  function pemOf(key: CryptoKey): Promise<string> {
    // jose returns the same object until the next fetch, so each key is converted once.
    const pem = pems.get(key) ?? exportSPKI(key)
    pems.set(key, pem)
    return pem
  }

  return {
    /**
     * Finds the public keys that may have signed such a token, in PEM, without duplicates.
     *
     * @param since arrival of the request, as `performance.now()`
     * @throws Unavailable if the keys are too old and cannot be fetched
     */
    async find(hint: KeyHint, since: number): Promise<string[]> {
      if (areOld()) {
        if (running === undefined) refuseAfterFailure()
        await waitFor(fetchKeys(), since)
      }
      return fitting(hint)
    },

    /**
     * Waits for newer keys when a token fits none of the current ones. After that the caller tries again.
     *
     * @returns false if a fetch would not help: the keys are newer than the request, or were fetched too often
     * @throws Unavailable if the keys cannot be fetched: the token may be valid
     */
    async renew(since: number): Promise<boolean> {
      if (fetchedAt >= since) return false
      if (running === undefined) {
        refuseAfterFailure()
        const isLimited = extraFetchesUntil > performance.now() + (EXTRA_FETCHES - 1) * EXTRA_FETCH_MS
        if (scheduled === undefined && isLimited) return false
        scheduled ??= fetchExtra()
      }
      await waitFor(running ?? (scheduled as Promise<void>), since)
      return true
    },

    /** Fetches the keys. Returns a warning for the operator if that fails, or no key can be used. */
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

/** With the exponent 1, everyone can make signatures. */
function isStrong({ algorithm }: CryptoKey): boolean {
  const { modulusLength, publicExponent } = algorithm as {
    modulusLength?: number
    publicExponent?: Uint8Array
  }
  if (modulusLength === undefined || publicExponent === undefined) return true
  const isOne = publicExponent.every((byte, at) => byte === (at === publicExponent.length - 1 ? 1 : 0))
  return modulusLength >= MIN_RSA_BITS && !isOne
}
