import { randomBytes } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { type JWTPayload, SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { buildApp, type Overrides } from '../../src/app.js'
import { loadConfig } from '../../src/config.js'
import { type DatabaseKind, databaseEnv, KINDS } from './databases.js'

export const SECRET = randomBytes(32).toString('hex')

/** A token signed with `SECRET` that holds exactly these claims, and `exp` in an hour unless they name one. */
export function sign(claims: JWTPayload & Record<string, unknown>, secret = SECRET): Promise<string> {
  const exp = Math.floor(Date.now() / 1000) + 3600
  return new SignJWT({ exp, ...claims } as JWTPayload)
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .sign(Buffer.from(secret))
}

export interface Answer {
  status: number
  headers: Record<string, string | undefined>
  /** The body as it came; '' when there was none. */
  text: string
  /** The body as JSON, undefined when there was none. */
  // biome-ignore lint/suspicious/noExplicitAny: what a test expects of it is what the test says.
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

/** Requests go through `inject`: the whole app without a socket. */
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

/** Sends one request through `inject`, with nothing added to it. */
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

/** The app that production builds, on a new empty database of the given kind; closed with the test. */
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
  return app
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
