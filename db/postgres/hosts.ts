import { setTimeout as sleep } from 'node:timers/promises'
import { type Client, type ConnectionEvents, openClient } from './driver.js'
import type { DatabaseAddress, PostgresTarget } from './url.js'

/** Time in which only the last usable server is tried, in milliseconds. After that the others are tried as well. */
const HEAD_START_MS = 500
/** Delay before the next attempt at a server that has failed, in milliseconds, while another has not answered yet. */
const ASK_AGAIN_MS = 200

/**
 * Connects to the primary among the servers of a URL. The last usable server is tried first. If it fails or is slow, all
 * are tried at the same time. The first server that accepts writes is used, so a dead server causes no delay.
 *
 * A standby is never used, because its rows may be old. A primary that is set to read-only is used only if the URL has no
 * other server.
 *
 * @returns a function that connects. It rejects if every server has failed
 */
export function connector(target: PostgresTarget): (events?: ConnectionEvents) => Promise<Client> {
  const { addresses } = target
  let current = addresses[0] as DatabaseAddress

  return (events) => {
    const failures = new Map<DatabaseAddress, unknown>()
    let isOver = false
    const firstFailure = new AbortController()
    const headStart = sleep(HEAD_START_MS, undefined, { ref: false, signal: firstFailure.signal }).catch(
      () => {}
    )

    /** Tries one server until it can be used, another one is used, or all have failed. */
    async function ask(address: DatabaseAddress): Promise<Client> {
      if (address !== current) await headStart
      while (!isOver) {
        try {
          const client = await openPrimary(address)
          current = address
          return client
        } catch (error) {
          failures.set(address, error)
          firstFailure.abort()
        }
        if (failures.size === addresses.length) break
        await sleep(ASK_AGAIN_MS)
      }
      throw failures.get(address)
    }

    async function openPrimary(address: DatabaseAddress): Promise<Client> {
      let isUsed = false
      const client = await openClient(target, address, {
        // A connection that is not used was never reported as open.
        onClosed: () => isUsed && events?.onClosed(),
        onStandbyUnconfirmed: () => events?.onStandbyUnconfirmed()
      })
      const isPrimary = !client.isStandby && (!client.isReadOnly || addresses.length === 1)
      isUsed = isPrimary && !isOver
      isOver ||= isPrimary
      if (isUsed) return client
      client.destroy()
      throw new Error(client.isStandby ? 'the server is a standby' : 'the server is read-only')
    }

    return Promise.any(addresses.map(ask)).catch(() => {
      throw failureOf(failures)
    })
  }
}

/** One error for the failures of all servers, with the code of the first that has one. */
function failureOf(failures: Map<DatabaseAddress, unknown>): unknown {
  const errors = [...failures.values()] as (Error & { code?: string })[]
  if (errors.length === 1) return errors[0]
  const texts = [...failures].map(([address, error]) => {
    const name = 'path' in address ? address.path : `${address.host}:${address.port}`
    return `${name}: ${(error as Error).message || (error as { code?: string }).code}`
  })
  const code = errors.find((error) => error.code !== undefined)?.code
  return Object.assign(new Error(`none of the servers can be used: ${texts.join('; ')}`), { code })
}
