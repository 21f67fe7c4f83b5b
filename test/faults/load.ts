import { setTimeout as sleep } from 'node:timers/promises'
import { type Answer, fateOf, isWrite, type Operation, type Request } from './history.js'
import { HttpClient } from './http-client.js'
import { type Random, randomOf } from './random.js'

/** Number of clients that share tasks, so that their changes are concurrent. */
const GROUP = 6
/** Number of operations on a shared task before a new one replaces it. Its history must be short enough to search. */
const SHARED_OPERATIONS = 60
/** Number of operations of a client before it continues as another user, so that lists stay short. */
const USER_OPERATIONS = 100
/** Pause between a client's operations, in milliseconds. */
const PAUSE_MS = [2, 20] as const
/** Pause after a 503, in milliseconds. Shorter than Retry-After, for more load. */
const BACKOFF_MS = [100, 400] as const

interface Known {
  id: string
  version: number
  /** Another request with the same key may still be running, and would create the task again. */
  isPending: boolean
}

interface Shared {
  user: string
  known: Promise<Known | undefined>
  operations: number
}

export interface LoadOptions {
  clients: number
  seed: number
  /** The URLs of the replicas. Each client uses one, and retries with a key on all in turn. */
  apis: string[]
}

/** Many clients that use the service like frontends. Each does one thing after another, and all is recorded. */
export class Load {
  readonly history: Operation[] = []
  readonly #apis: string[]
  readonly #clients: HttpClient[]
  readonly #random: Random
  readonly #shared = new Map<number, Shared>()
  readonly #running: Promise<void>[]
  #stopped = false
  #marks = 0

  constructor({ clients, seed, apis }: LoadOptions) {
    this.#apis = apis
    this.#random = randomOf(seed)
    this.#clients = Array.from({ length: clients }, () => new HttpClient())
    this.#running = this.#clients.map((_, client) => this.#run(client))
  }

  /** Resolves when all running operations have ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#running)
  }

  /**
   * Lists the tasks of every user for the check. Must be called after `stop`.
   *
   * @throws Error if the service refuses
   */
  async listAll(): Promise<void> {
    const users = [...new Set(this.history.map(({ user }) => user))]
    await Promise.all(
      this.#clients.map(async (_, client) => {
        for (let user = users.pop(); user !== undefined; user = users.pop()) {
          const answer = await this.#do(client, user, { kind: 'list', status: 'all' })
          if (answer?.status !== 200)
            throw new Error(`the last list of ${user} was answered with ${answer?.status}`)
        }
      })
    )
    for (const client of this.#clients) client.close()
  }

  async #do(client: number, user: string, request: Request, attempt = 0): Promise<Answer | undefined> {
    const replica = (client + attempt) % this.#apis.length
    const began = performance.now()
    const answer = await (this.#clients[client] as HttpClient).send(
      this.#apis[replica] as string,
      user,
      request
    )
    const ended = performance.now()
    this.history.push({ user, client, replica, request, began, ended, ...(answer && { answer }) })
    return answer
  }

  async #run(client: number): Promise<void> {
    for (let turn = 0; !this.#stopped; turn++) {
      const user = `client-${client}-${turn}`
      const own: Known[] = []
      for (let count = 0; count < USER_OPERATIONS && !this.#stopped; count++) {
        const isWell = await (this.#random.chance(0.3) ? this.#meet(client) : this.#work(client, user, own))
        const [from, to] = isWell ? PAUSE_MS : BACKOFF_MS
        await sleep(this.#random.between(from, to))
      }
    }
  }

  /** One operation on a task that other clients change at the same time. */
  async #meet(client: number): Promise<boolean> {
    const group = Math.floor(client / GROUP)
    let shared = this.#shared.get(group)
    if (!shared || shared.operations >= SHARED_OPERATIONS) {
      const mark = this.#mark()
      // Each shared task has a user of its own, because a user of many would have a long history of lists.
      const user = `group-${group}-${mark}`
      shared = {
        user,
        operations: 0,
        known: this.#create(client, user, { mark, title: mark, completed: false })
      }
      this.#shared.set(group, shared)
    }
    shared.operations++
    const known = await shared.known
    if (!known) {
      if (this.#shared.get(group) === shared) this.#shared.delete(group)
      return false
    }
    const { user } = shared
    const { id } = known
    const dice = this.#random.between(0, 1)
    if (dice < 0.4) return this.#isWell(client, user, { kind: 'toggle', id })
    if (dice < 0.55)
      return this.#isWell(client, user, { kind: 'set', id, completed: this.#random.chance(0.5) })
    const read = await this.#do(client, user, { kind: 'get', id })
    if (read?.version === undefined) return false
    if (dice < 0.65) return true
    return this.#isWell(client, user, { kind: 'update', id, title: this.#mark(), version: read.version })
  }

  /** One operation on a task that only this client knows, `own`. */
  async #work(client: number, user: string, own: Known[]): Promise<boolean> {
    const dice = this.#random.between(0, 1)
    if (own.length === 0 || dice < 0.5) {
      const mark = this.#mark()
      const isKeyed = this.#random.chance(0.5)
      const task = { mark, title: mark, completed: this.#random.chance(0.2), ...(isKeyed && { key: mark }) }
      const known = await this.#create(client, user, task)
      if (known) own.push(known)
      return known !== undefined
    }
    const known = this.#random.pick(own)
    const { id } = known
    if (dice < 0.6) {
      const status = this.#random.pick(['all', 'all', 'pending', 'completed'] as const)
      return this.#isWell(client, user, { kind: 'list', status })
    }
    if (dice < 0.65) return this.#isWell(client, user, { kind: 'get', id })
    if (dice < 0.75) {
      if (known.isPending) return true
      own.splice(own.indexOf(known), 1)
      return this.#isWell(client, user, { kind: 'delete', id })
    }
    const version = this.#random.chance(0.7) ? known.version : undefined
    const update = { kind: 'update', id, title: this.#mark(), ...(version && { version }) } as const
    const answer = await this.#do(client, user, update)
    // After a 412 too: an earlier change without an answer was executed.
    if (answer?.version !== undefined) known.version = answer.version
    return answer !== undefined && answer.status < 500
  }

  async #isWell(client: number, user: string, request: Request): Promise<boolean> {
    const answer = await this.#do(client, user, request)
    return answer !== undefined && answer.status < 500
  }

  /**
   * Creates a task. With a key it repeats the request until that is acknowledged, sometimes twice at the same time.
   */
  async #create(
    client: number,
    user: string,
    task: Omit<Request & { kind: 'create' }, 'kind'>
  ): Promise<Known | undefined> {
    const request = { kind: 'create', ...task } as const
    for (let attempt = 0; ; attempt++) {
      const isDouble = task.key !== undefined && this.#random.chance(0.1)
      const answers = await Promise.all(
        (isDouble ? [attempt, attempt + 1] : [attempt]).map((number) =>
          this.#do(client, user, request, number)
        )
      )
      const made = answers.find((answer) => answer?.status === 201)
      if (made?.task) {
        const isPending = attempt > 0 || answers.some((answer) => answer?.status !== 201)
        return { id: made.task.id, version: made.version ?? 1, isPending }
      }
      const isRefused = answers.some((answer) => answer && answer.status < 500)
      if (task.key === undefined || isRefused) return undefined
      await sleep(this.#random.between(...BACKOFF_MS))
    }
  }

  /** Different each time. */
  #mark(): string {
    return `m${this.#marks++}`
  }
}

/**
 * The time of the first answer to a write that this replica acknowledged after `time`; undefined if there is none
 * yet.
 */
export function firstSuccess(history: Operation[], replica: number, time: number): number | undefined {
  // From the newest, because most of the history was answered before that time.
  let first: number | undefined
  for (let index = history.length - 1; index >= 0; index--) {
    const operation = history[index] as Operation
    if (operation.ended < time) break
    const counts = operation.replica === replica && operation.began >= time
    if (counts && isWrite(operation) && fateOf(operation) === 'done') first = operation.ended
  }
  return first
}
