import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { STATUS_CODES } from 'node:http'
import type { FastifyInstance } from 'fastify'
import { type Task, tasks } from '../../db/schema.js'
import { type ErrorCode, STATUS_OF } from '../../plugins/errors/catalogue.js'
import { buildApp, type Overrides } from '../../src/app.js'
import { loadConfig } from '../../src/config.js'
import { type DatabaseKind, databaseEnv, KINDS, sqlClient } from './databases.js'
import { SECRET, sign } from './sign.js'
import t, { type Test } from './tap.js'

// sign.ts is a file of its own, because programs that are not tests use it, and must not import tap.
export { SECRET, sign }

export interface Answer {
  status: number
  headers: Record<string, string | undefined>
  /** The raw body; '' if there is none. */
  text: string
  /** The parsed body; undefined if there is none. */
  // biome-ignore lint/suspicious/noExplicitAny: each test knows the form of its answer.
  json: any
}

/**
 * Sends requests with a user's token.
 *
 * @param path below `/api/{user}/tasks`, such as '' or `/${id}?x=1`; a path that starts with `/api` is taken whole
 * @param body an object is sent as JSON, a string or Buffer as it is with the given headers; undefined sends none
 */
export type Client = (
  method: string,
  path?: string,
  body?: unknown,
  headers?: Record<string, string>
) => Promise<Answer>

/** Sends requests through `inject`: the whole app without a socket. */
export async function clientOf(app: FastifyInstance, user: string): Promise<Client> {
  const token = await sign({ sub: user })
  return (method, path = '', body, headers) =>
    request(
      app,
      method,
      path.startsWith('/api') ? path : `/api/${encodeURIComponent(user)}/tasks${path}`,
      body,
      {
        authorization: `Bearer ${token}`,
        ...headers
      }
    )
}

/** Sends exactly this request through `inject`. */
export async function request(
  app: FastifyInstance,
  method: string,
  url: string,
  body?: unknown,
  headers: Record<string, string> = {}
): Promise<Answer> {
  const response = await app.inject({
    method: method as 'GET',
    url,
    headers,
    ...(body !== undefined && { payload: body as string })
  })
  return {
    status: response.statusCode,
    headers: response.headers as Answer['headers'],
    text: response.body,
    json: response.body === '' ? undefined : JSON.parse(response.body)
  }
}

/** Builds the app as in production, on a new empty database of this kind. It is closed with the test. */
export async function startApp(
  t: Test,
  kind: DatabaseKind = 'postgres',
  env: Record<string, string> = {},
  overrides: Overrides = {}
): Promise<FastifyInstance> {
  const database = env.DATABASE_URL || env.DATA_DIR ? {} : await databaseEnv(t, kind)
  const config = loadConfig({ JWT_SECRET: SECRET, LOG_LEVEL: 'silent', ...database, ...env })
  const app = await buildApp(config, overrides)
  t.teardown(() => app.close())
  if (config.database.kind === 'postgres') {
    const { url } = config.database
    let client: ReturnType<typeof sqlClient> | undefined
    observers.set(app, () => {
      client ??= sqlClient(t, url)
      return client
    })
  }
  return app
}

/** A client for each app on PostgreSQL that stays connected. */
const observers = new WeakMap<FastifyInstance, () => ReturnType<typeof sqlClient>>()

/** Every user's rows in the table. */
export async function rowsOf(app: FastifyInstance): Promise<Task[]> {
  const observer = observers.get(app)?.()
  if (observer) return [...(await observer<Task[]>`select * from tasks order by id`)]
  return app.db.withAdminConnection((orm) => orm.select().from(tasks).orderBy(tasks.id))
}

/** Calls `use` with the next instance that `buildApp` makes, before any plugin is registered. */
export function onNextApp(use: (app: FastifyInstance) => void): void {
  const channel = 'fastify.initialization'
  subscribe(channel, function once(message) {
    unsubscribe(channel, once)
    use((message as { fastify: FastifyInstance }).fastify)
  })
}

/** Lets `add` register routes on the root of the next app, together with its own. */
export function addToNextApp(add: (app: FastifyInstance) => void): void {
  onNextApp((app) => {
    let added = false
    app.addHook('onRoute', ({ url }) => {
      if (added || !url.startsWith('/api/')) return
      added = true
      add(app)
    })
  })
}

const REQUEST_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/**
 * The parts of an answer that a documented error has, for comparison with `problem`. An answer to HEAD has no body.
 */
export function problemIn({ status, headers, json }: Answer, isHead = false) {
  const { detail, errors, ...rest } = json ?? {}
  return {
    status,
    type: headers['content-type'],
    hasRequestId: REQUEST_ID.test(headers['x-request-id'] ?? ''),
    hasDetail: isHead || (typeof detail === 'string' && detail !== ''),
    hasErrors: Array.isArray(errors),
    challenge: headers['www-authenticate']?.slice(0, 20),
    body: isHead ? undefined : rest
  }
}

/** The result of `problemIn` for exactly this error. */
export function problem(code: ErrorCode, isHead = false): ReturnType<typeof problemIn> {
  const status = STATUS_OF[code]
  return {
    status,
    type: 'application/problem+json; charset=utf-8',
    hasRequestId: true,
    hasDetail: true,
    hasErrors: !isHead && code === 'validation_failed',
    challenge: code === 'unauthorized' ? 'Bearer realm="tasks"' : undefined,
    body: isHead ? undefined : { type: 'about:blank', title: STATUS_CODES[status], status, code }
  }
}

/** Checks that the answer is exactly one of the documented errors. */
export function expectProblem(
  t: Test,
  answer: Answer,
  code: ErrorCode,
  message: string = code,
  isHead = false
): void {
  t.strictSame(problemIn(answer, isHead), problem(code, isHead), message)
}

/** Runs the same tests on a real PostgreSQL server and on the embedded database. */
export function onEachDatabase(
  body: (t: Test, app: FastifyInstance, kind: DatabaseKind) => Promise<void>
): void {
  for (const kind of KINDS) {
    t.test(`on the ${kind} database`, async (t) => {
      await body(t, await startApp(t, kind), kind)
    })
  }
}
