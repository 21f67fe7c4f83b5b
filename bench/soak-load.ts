import { randomUUID } from 'node:crypto'
import { Agent, type IncomingMessage, type RequestOptions, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { sign } from '../test/support/sign.js'
import { random } from './operations.js'

/** Number of users. Each has at most one running request, so that the right answer is known beforehand. */
const USERS = 200
/** Number of tasks of each user. Above it, a step deletes a task instead of creating one. */
const TASKS = 20
/** The user of the long lists, and the number of their tasks; see `seedLongList`. */
export const HOARDER = 'hoarder'
export const HOARD = 2_000

const TICK_MS = 10
const KEPT_CONNECTIONS = 32
/** Share of the requests that open a connection of their own. */
const NEW_CONNECTIONS = 0.1
/** Share of the requests with a new token, so that the cache of tokens is full within a minute. */
const NEW_TOKENS = 0.3
/** Timeout of an answer, in milliseconds. A later answer counts as wrong. */
const PATIENCE_MS = 10_000
const MOST_WRONG = 100

interface User {
  id: string
  token: string
  tasks: { id: string; version: number }[]
}

async function newUser(): Promise<User> {
  const id = randomUUID()
  return { id, token: await sign({ sub: id }), tasks: [] }
}

type Step = (user: User) => Promise<unknown>

class Refused extends Error {}

interface Answer {
  status: number
  headers: IncomingMessage['headers']
  body: string
}

export interface SoakLoad {
  /** Steps that could not begin because every user had a running request. */
  missed: number
  /** Answers so far, by operation. */
  counts: Map<string, number>
  /** Steps that got a 503, which is allowed on a busy machine. */
  refused: number
  /** Wrong answers, abbreviated. */
  wrong: string[]
  /** Latencies in milliseconds since the last call. */
  takeLatencies(): number[]
  /** Resolves when every step has ended and every connection is closed. */
  pause(): Promise<void>
  resume(): void
}

/** @param rate steps per second, most of them with one request */
export async function startSoakLoad(api: string, rate: number): Promise<SoakLoad> {
  let agent = newAgent()
  const free: User[] = []
  for (let i = 0; i < USERS; i++) free.push(await newUser())
  const hoarder: User = { id: HOARDER, token: await sign({ sub: HOARDER }), tasks: [] }
  let latencies: number[] = []
  let underWay = 0
  let timer: NodeJS.Timeout

  function begin(): void {
    const began = performance.now()
    let steps = 0
    timer = setInterval(() => {
      const due = Math.floor(((performance.now() - began) * rate) / 1000)
      for (; steps < due; steps++) {
        const { name, step } = anyStep()
        const user = name.startsWith('long') ? hoarder : free.splice(random(free.length), 1)[0]
        if (user === undefined) {
          load.missed++
          continue
        }
        underWay++
        void take(name, step, user)
      }
    }, TICK_MS)
  }

  const load: SoakLoad = {
    missed: 0,
    refused: 0,
    counts: new Map(),
    wrong: [],
    takeLatencies() {
      const taken = latencies
      latencies = []
      return taken
    },
    async pause() {
      clearInterval(timer)
      while (underWay > 0) await new Promise((done) => setTimeout(done, TICK_MS))
      agent.destroy()
    },
    resume() {
      agent = newAgent()
      begin()
    }
  }

  async function take(name: string, step: Step, user: User): Promise<void> {
    try {
      await step(user)
      load.counts.set(name, (load.counts.get(name) ?? 0) + 1)
      if (user !== hoarder) free.push(user)
    } catch (error) {
      if (error instanceof Refused) load.refused++
      else if (load.wrong.length < MOST_WRONG) load.wrong.push(`${name}: ${(error as Error).message}`)
      // The state of the user's tasks is unknown, so another user replaces this one.
      if (user !== hoarder) free.push(await newUser())
    }
    underWay--
  }

  function open(user: User, method: string, path: string, headers: object, body?: unknown) {
    const own = Math.random() < NEW_CONNECTIONS
    const options: RequestOptions = {
      method,
      agent: own ? false : agent,
      timeout: PATIENCE_MS,
      headers: {
        authorization: `Bearer ${user.token}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers
      }
    }
    return new Promise<IncomingMessage>((resolve, reject) => {
      const sent = request(`${api}/api/${user.id}/tasks${path}`, options, resolve)
      sent.on('error', reject).on('timeout', () => sent.destroy(new Error('no answer')))
      sent.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  async function send(
    user: User,
    expected: number,
    method: string,
    path: string,
    body?: unknown,
    headers: object = {}
  ): Promise<Answer> {
    if (Math.random() < NEW_TOKENS) user.token = await sign({ sub: user.id, jti: randomUUID() })
    const from = performance.now()
    const response = await open(user, method, path, headers, body)
    const answer = {
      status: response.statusCode as number,
      headers: response.headers,
      body: await text(response)
    }
    latencies.push(performance.now() - from)
    if (answer.status === 503) throw new Refused()
    if (answer.status !== expected)
      throw new Error(
        `${method} ${path}: ${answer.status} instead of ${expected}: ${answer.body.slice(0, 200)}`
      )
    return answer
  }

  const versionOf = ({ headers }: Answer) => Number(/\d+/.exec(headers.etag ?? '')?.[0])
  const content = () => ({
    title: `Task ${randomUUID()}`,
    description: 'Something to keep in mind. '.repeat(random(8))
  })

  async function create(user: User, headers: object = {}): Promise<void> {
    const body = content()
    const made = await send(user, 201, 'POST', '', body, headers)
    const { id } = JSON.parse(made.body)
    user.tasks.push({ id, version: versionOf(made) })
    if (!('idempotency-key' in headers)) return
    const again = await send(user, 201, 'POST', '', body, headers)
    if (JSON.parse(again.body).id !== id)
      throw new Error(`one key made two tasks: ${made.body} ${again.body}`)
  }

  async function remove(user: User): Promise<void> {
    const [{ id, version }] = user.tasks.splice(random(user.tasks.length), 1) as [User['tasks'][0]]
    await send(
      user,
      204,
      'DELETE',
      `/${id}`,
      undefined,
      Math.random() < 0.5 ? { 'if-match': `"${version}"` } : {}
    )
  }

  /** A step on an existing task. If there is none, it creates one. */
  const onTask = (step: (user: User, task: User['tasks'][0]) => Promise<void>) => (user: User) => {
    const task = user.tasks[random(user.tasks.length)]
    return task ? step(user, task) : create(user)
  }

  async function list(user: User, query: string, least: number, most: number): Promise<void> {
    const { body } = await send(user, 200, 'GET', query)
    const { length } = JSON.parse(body)
    if (length < least || length > most) throw new Error(`${length} tasks instead of ${least} to ${most}`)
  }

  /** The steps, with their number in a thousand. */
  const STEPS: Record<string, [number, Step]> = {
    get: [250, onTask((user, { id }) => send(user, 200, 'GET', `/${id}`).then(() => {}))],
    'get, not modified': [
      80,
      onTask(async (user, { id, version }) => {
        await send(user, 304, 'GET', `/${id}`, undefined, { 'if-none-match': `"${version}"` })
      })
    ],
    list: [150, (user) => list(user, '', user.tasks.length, user.tasks.length)],
    'list of some': [50, (user) => list(user, '?status=pending', 0, user.tasks.length)],
    'create or delete': [150, (user) => (user.tasks.length < TASKS ? create(user) : remove(user))],
    'create with a key, twice': [
      30,
      (user) => (user.tasks.length < TASKS ? create(user, { 'idempotency-key': randomUUID() }) : remove(user))
    ],
    update: [
      80,
      onTask(async (user, task) => {
        const headers = Math.random() < 0.5 ? { 'if-match': `"${task.version}"` } : {}
        const method = Math.random() < 0.5 ? 'PUT' : 'PATCH'
        task.version = versionOf(await send(user, 200, method, `/${task.id}`, content(), headers))
      })
    ],
    'update of an old version': [
      20,
      onTask(async (user, { id, version }) => {
        await send(user, 412, 'PATCH', `/${id}`, content(), { 'if-match': `"${version + 1}"` })
      })
    ],
    toggle: [
      80,
      onTask(async (user, task) => {
        task.version = versionOf(await send(user, 200, 'PATCH', `/${task.id}/complete`))
      })
    ],
    'bad token': [
      30,
      (user) => send(user, 401, 'GET', '', undefined, { authorization: `Bearer x${user.token}` })
    ],
    'no token': [10, (user) => send(user, 401, 'GET', '', undefined, { authorization: '' })],
    "another's": [
      10,
      (user) =>
        // The header is set here, because `send` would sign a new token for this user.
        send({ ...user, id: HOARDER }, 403, 'GET', '', undefined, { authorization: `Bearer ${user.token}` })
    ],
    'no such task': [25, (user) => send(user, 404, 'GET', `/${randomUUID()}`)],
    'bad body': [25, (user) => send(user, 422, 'POST', '', { title: '' })],
    'broken JSON': [5, (user) => send(user, 422, 'POST', '', 'no object')],
    'long list': [2, (user) => list(user, '', HOARD, HOARD)],
    'long list, given up': [
      1,
      async (user) => {
        const response = await open(user, 'GET', '', {})
        // This step aborts the request on purpose.
        response.once('data', () => response.destroy()).on('error', () => {})
        await new Promise((done) => response.once('close', done))
      }
    ]
  }
  const total = Object.values(STEPS).reduce((sum, [share]) => sum + share, 0)
  function anyStep() {
    let left = random(total)
    for (const [name, [share, step]] of Object.entries(STEPS)) {
      left -= share
      if (left < 0) return { name, step }
    }
    throw new Error('the shares do not add up')
  }

  begin()
  return load
}

const newAgent = () => new Agent({ keepAlive: true, maxSockets: KEPT_CONNECTIONS, scheduling: 'fifo' })
