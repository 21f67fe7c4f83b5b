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

/**
 * Drives a server with autocannon from another process.
 *
 * @param warmup seconds before the window that counts
 * @param onWindow called when the window begins and when it ends
 * @throws Error when an answer had another status than it should, or none came
 */
export async function load(
  options: {
    url: string
    connections: number
    warmup: number
    seconds: number
    requests: Request[]
  },
  { statuses }: Operation,
  onWindow: (event: 'started' | 'ended') => void,
  signal: AbortSignal
): Promise<Load> {
  const child = fork(join(import.meta.dirname, 'load.mjs'), { execArgv: [], signal })
  try {
    const result = await new Promise<Extract<Message, { event: 'result' }>>((resolve, reject) => {
      child.on('message', (message: Message) => {
        if (message.event === 'result') resolve(message)
        else onWindow(message.event)
      })
      child.once('error', reject)
      child.once('exit', (code) => reject(new Error(`the load generator ended (${code})`)))
      child.send(options)
    })
    const wrong = Object.keys(result.statuses).filter((status) => !statuses.includes(Number(status)))
    if (wrong.length > 0 || result.failed !== undefined || result.count === 0) {
      const counts = JSON.stringify(result.statuses)
      throw new Error(`expected only ${statuses.join(', ')}, got ${counts} ${result.failed ?? ''}`)
    }
    const { event, statuses: _, failed, ...measured } = result
    return measured
  } finally {
    child.kill()
  }
}
