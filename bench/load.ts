import { fork } from 'node:child_process'
import { join } from 'node:path'
import type { Users } from './dataset.js'
import type { Operation, Request } from './operations.js'

/** One measurement of the load, with latencies in milliseconds. */
export interface Load {
  count: number
  /** Answers per second. */
  rate: number
  p50: number
  p99: number
  /** Without the slow requests, if there are some. */
  othersP50?: number
  othersP99?: number
}

type Message =
  | { event: 'started' | 'ended' }
  | ({ event: 'result'; statuses: Record<string, number>; failed?: string } & Load)

/** Number of requests that the connections send in turn. Each must send other requests than the rest. */
const REQUESTS = 10_000

/** @param slow the users of one request in a hundred */
export const makeRequests = (operation: Operation, users: Users, slow?: Users): Request[] =>
  Array.from({ length: REQUESTS }, () =>
    slow && Math.random() < 0.01 ? { ...operation.request(slow), slow: true } : operation.request(users)
  )

export interface LoadGenerator {
  /**
   * Sends requests to a server.
   *
   * @param warmup duration of the warm-up in seconds
   * @param onWindow called when the window begins and when it ends
   * @throws Error if an answer has an unexpected status, or there is none
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
