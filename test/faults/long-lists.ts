import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { sign } from '../support/sign.js'
import type { Operation } from './history.js'
import { type Random, randomOf } from './random.js'
import type { System } from './system.js'

const USER = 'reader'
/** A list of this many tasks is streamed, and larger than all buffers on its way. */
const TASKS = 600
const DESCRIPTION = 'x'.repeat(4_000)
/** Number of readers for each replica. */
const READERS = 2
/** Pause between two lists of a reader, in milliseconds. */
const PAUSE_MS = [500, 3_000] as const
/** Timeout of a reader, in milliseconds. */
const PATIENCE_MS = 30_000
/** Times for which a slow reader stops reading, in milliseconds. The longest exceeds the service's timeout. */
const STOPS_MS = [50, 50, 500, 500, 2_000, 12_000]

/** Ways to read a list that has begun. */
const HOW = ['whole', 'aborted', 'slow'] as const

/** Number of lists by their end: those above if all was well, or `refused`, `broken off` or `no answer`. */
export type Ends = Record<string, number>

/** Readers of a long list that never changes. Some read all of it, some disconnect in the middle, some are slow. */
export class LongLists {
  readonly ends: Ends = {}
  /** The beginning of each answer, without its tasks. */
  readonly operations: Operation[] = []
  /** Lists that looked complete and were not. */
  readonly wrong: string[] = []
  readonly #running: Promise<void>[]
  #stopped = false

  private constructor(apis: string[], seed: number, token: string) {
    this.#running = apis.flatMap((api, replica) =>
      Array.from({ length: READERS }, (_, reader) =>
        this.#run(api, replica, token, randomOf(seed + 101 * (replica * READERS + reader) + 7))
      )
    )
  }

  static async start({ withAdminConnection, replicas }: System, seed: number): Promise<LongLists> {
    await withAdminConnection(
      (sql) => sql`
        insert into tasks (user_id, id, title, description, completed)
        select ${USER}, ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, n::text, ${DESCRIPTION}, false
        from generate_series(1, ${TASKS}::int) n`
    )
    return new LongLists(
      replicas.map(({ api }) => api),
      seed,
      await sign({ sub: USER })
    )
  }

  /** Resolves when all running lists have ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#running)
  }

  async #run(api: string, replica: number, token: string, random: Random): Promise<void> {
    while (!this.#stopped) {
      const how = random.pick(HOW)
      const end = await this.#read(api, replica, token, random, how)
      this.ends[end] = (this.ends[end] ?? 0) + 1
      await sleep(random.between(...PAUSE_MS))
    }
  }

  async #read(
    api: string,
    replica: number,
    token: string,
    random: Random,
    how: (typeof HOW)[number]
  ): Promise<string> {
    const response = await this.#ask(api, replica, token)
    if (response === undefined) return 'no answer'
    try {
      if (response.statusCode !== 200) {
        await text(response)
        return 'refused'
      }
      await once(response, 'readable')
      if (how === 'aborted') {
        response.destroy()
        return how
      }
      if (how === 'slow') await sleep(random.pick(STOPS_MS))
      const tasks = JSON.parse(await text(response)) as { title: string }[]
      const isWhole = tasks.length === TASKS && tasks.every(({ title }, n) => title === String(TASKS - n))
      if (!isWhole) this.wrong.push(`${tasks.length} tasks instead of ${TASKS}, from replica ${replica}`)
      return how
    } catch (error) {
      if (error instanceof SyntaxError) this.wrong.push(`no JSON, from replica ${replica}: ${error.message}`)
      return 'broken off'
    }
  }

  /** @returns undefined if the connection failed before the answer began */
  async #ask(api: string, replica: number, token: string): Promise<IncomingMessage | undefined> {
    const began = performance.now()
    const headers = { authorization: `Bearer ${token}` }
    const request = get(`${api}/api/${USER}/tasks`, { headers, agent: false, timeout: PATIENCE_MS })
    request.on('timeout', () => {
      this.wrong.push(`nothing came for ${PATIENCE_MS} ms, from replica ${replica}`)
      request.destroy()
    })
    const response = await new Promise<IncomingMessage | undefined>((resolve) => {
      request.on('error', () => resolve(undefined))
      request.on('response', resolve)
    })
    response?.on('error', () => {})
    const status = response?.statusCode
    const refused = { code: 'unavailable', hasRetryAfter: response?.headers['retry-after'] !== undefined }
    this.operations.push({
      user: USER,
      client: -1,
      replica,
      request: { kind: 'list', status: 'all' },
      began,
      ended: performance.now(),
      ...(status !== undefined && { answer: { status, ...(status === 503 && refused) } })
    })
    return response
  }
}
