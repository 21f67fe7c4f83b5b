import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import type { Node } from './cluster.js'

const INTERVAL_MS = 50
/** Timeout of one check, in milliseconds. A write that waits for its standby is checked again after that. */
const LOOK_MS = 1_000

/** The time when a node was seen in this role, as `performance.now()`. */
interface Seen {
  node: Node
  primaryAt: number
  /** The time when it acknowledged a write. */
  writableAt: number
}

/** Watches the nodes without the proxies, and records when each becomes a primary, and acknowledges a write. */
export class Watch {
  readonly seen: Seen[] = []
  #stopped = false
  readonly #running: Promise<void>[]

  constructor(nodes: Node[]) {
    this.#running = nodes.map((node) => this.#run(node))
  }

  /** The first other node that acknowledged a write after `time`. */
  next(time: number, not: Node): Seen | undefined {
    return this.seen.find(({ node, writableAt }) => node !== not && writableAt >= time)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#running)
  }

  async #run(node: Node): Promise<void> {
    let sql = clientOf(node)
    let primaryAt: number | undefined
    let isNoted = false
    while (!this.#stopped) {
      try {
        const [row] = await inTime(sql`select pg_is_in_recovery() as is_standby`)
        if (row?.is_standby) {
          primaryAt = undefined
          isNoted = false
        } else if (!isNoted) {
          primaryAt ??= performance.now()
          await inTime(sql`insert into probe values (1)`)
          this.seen.push({ node, primaryAt, writableAt: performance.now() })
          isNoted = true
        }
      } catch {
        if (primaryAt !== undefined && isNoted) primaryAt = undefined
        isNoted = false
        void sql.end({ timeout: 0 }).catch(() => {})
        sql = clientOf(node)
      }
      await sleep(INTERVAL_MS)
    }
    await sql.end({ timeout: 0 })
  }
}

// The driver leaves its own question for types uncaught if the connection breaks.
const clientOf = (node: Node) =>
  postgres(node.url, { max: 1, connect_timeout: 1, fetch_types: false, onnotice: () => {} })

function inTime<T>(query: PromiseLike<T>): Promise<T> {
  return Promise.race([
    query,
    sleep(LOOK_MS).then(() => {
      throw new Error('too late')
    })
  ])
}
