import { fork } from 'node:child_process'
import { join } from 'node:path'
import type { Users } from './dataset.js'
import type { Operation, Request } from './operations.js'

/** What one measurement says of the load. Latencies in milliseconds. */
export interface Load {
  count: number
  /** Answers per second. */
  rate: number
  p50: number
  p99: number
  /** Of the requests that are not among the slow ones, where some are. */
  othersP50?: number
  othersP99?: number
}

type Message =
  | { event: 'started' | 'ended' }
  | ({ event: 'result'; statuses: Record<string, number>; failed?: string } & Load)

/** How many requests the connections take turns with: enough that each asks for something else than the others. */
const REQUESTS = 10_000

/** @param slow users that one request in a hundred is of */
export const makeRequests = (operation: Operation, users: Users, slow?: Users): Request[] =>
  Array.from({ length: REQUESTS }, () =>
    slow && Math.random() < 0.01 ? { ...operation.request(slow), slow: true } : operation.request(users)
  )

export interface LoadGenerator {
  /**
   * Drives a server.
   *
   * @param warmup seconds before the window that counts
   * @param onWindow called when the window begins and when it ends
   * @throws Error when an answer had another status than it should, or none came
   */
  drive(
    options: {
      url: string
      connections: number
      warmup: number
      seconds: number
      requests: Request[]
    },
    operation: Operation,
    onWindow?: (event: 'started' | 'ended') => void
  ): Promise<Load>
  stop(): void
}

/** Starts autocannon in another process. */
export function startLoadGenerator(signal: AbortSignal): LoadGenerator {
  const child = fork(join(import.meta.dirname, 'load.mjs'), { execArgv: [], signal })
  const ended = new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`the load generator ended (${code})`)))
  })
  ended.catch(() => {})
  return {
    async drive(options, { statuses }, onWindow) {
      const answer = new Promise<Extract<Message, { event: 'result' }>>((resolve) => {
        child.on('message', function receive(message: Message) {
          if (message.event !== 'result') return onWindow?.(message.event)
          child.off('message', receive)
          resolve(message)
        })
      })
      child.send(options)
      const { event: _, statuses: counts, failed, ...result } = await Promise.race([answer, ended])
      const wrong = Object.keys(counts).filter((status) => !statuses.includes(Number(status)))
      if (wrong.length > 0 || failed !== undefined || result.count === 0) {
        throw new Error(`expected only ${statuses.join(', ')}, got ${JSON.stringify(counts)} ${failed ?? ''}`)
      }
      return result
    },
    stop: () => child.kill()
  }
}
