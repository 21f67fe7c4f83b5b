import { METHODS } from 'node:http'
import { sql } from 'drizzle-orm'
import type { FastifyInstance } from 'fastify'
import type { Task } from '../db/schema.js'
import {
  type Answer,
  addToNextApp,
  type Client,
  clientOf,
  expectProblem,
  onNextApp,
  problem,
  problemIn,
  request,
  rowsOf,
  sign,
  startApp
} from './support/api.js'
import { holdsFor } from './support/cases.js'
import { KINDS } from './support/databases.js'
import { UNKNOWN_ID } from './support/refusals.js'
import t from './support/tap.js'

/** Each route of the API, with a request that succeeds for the task's owner. */
const OPERATIONS: Record<string, { success: number; body?: object }> = {
  'GET /api/:userId/tasks': { success: 200 },
  'HEAD /api/:userId/tasks': { success: 200 },
  'POST /api/:userId/tasks': { success: 201, body: { title: 'new' } },
  'GET /api/:userId/tasks/:taskId': { success: 200 },
  'HEAD /api/:userId/tasks/:taskId': { success: 200 },
  'PATCH /api/:userId/tasks/:taskId': { success: 200, body: { title: 'new' } },
  'PUT /api/:userId/tasks/:taskId': { success: 200, body: { title: 'new' } },
  'PATCH /api/:userId/tasks/:taskId/complete': { success: 200 },
  'DELETE /api/:userId/tasks/:taskId': { success: 204 }
}
/** @fastify/cors answers preflights on this route. They have no token. */
const PREFLIGHT = 'OPTIONS *'

/** The routes of the next app, in the form "GET /path", filled while it is built. */
function routesOfNextApp(): Set<string> {
  const routes = new Set<string>()
  onNextApp((app) => {
    app.addHook('onRoute', ({ method, url }) => {
      for (const name of [method].flat()) routes.add(`${name} ${url}`)
    })
  })
  return routes
}

const unknownRoutes = (routes: Set<string>) =>
  [...routes].filter((route) => route !== PREFLIGHT && !(route in OPERATIONS))

/** The request line of a route, for this user and task. */
function fill(route: string, user: string, taskId: string) {
  const [method, path] = route.split(' ') as [string, string]
  return { method, url: path.replace(':userId', encodeURIComponent(user)).replace(':taskId', taskId) }
}

/** The parts of two answers that must be equal. */
const comparable = ({ status, headers, text }: Answer) => {
  const { 'x-request-id': _id, date: _date, ...rest } = headers
  return { status, headers: rest, text }
}

/** A wrong comparison would take some neighbours here for equal: ignoring case, trimmed, decoded twice, as a pattern. */
const ALIKE = [
  'alice2',
  'Alice2',
  'ALICE2',
  'alice2 ',
  ' alice2',
  'alice2%20',
  'alice2%2520',
  'alice2+',
  'alice2\u200b',
  'caf\u00e9',
  'cafe\u0301',
  'straße',
  'strasse',
  'a',
  'a/b',
  'a%2Fb',
  'a%2fb',
  'a_',
  'a%',
  "a' or '1'='1",
  '*',
  'b',
  'null',
  'undefined',
  '__proto__',
  'me',
  '1',
  '01'
]

const OTHER_SECRET = 'another secret, of a length that is enough'
const ORIGIN = { origin: 'http://localhost:5173' }

for (const kind of KINDS) {
  t.test(`on the ${kind} database`, async (t) => {
    const routes = routesOfNextApp()
    const app = await startApp(t, kind)
    const alice = await clientOf(app, 'alice')
    const bob = await clientOf(app, 'bob')
    const create = async () => (await alice('POST', '', { title: "alice's" })).json.id

    t.test("this test's table has every route of the API", async (t) => {
      t.strictSame(unknownRoutes(routes), [])
      t.strictSame(
        Object.keys(OPERATIONS).filter((route) => !routes.has(route)),
        []
      )
      // The OpenAPI document has the same routes, except HEAD.
      const documented = Object.entries(app.swagger().paths ?? {}).flatMap(([path, item]) =>
        Object.keys(item as object).map(
          (method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`
        )
      )
      t.strictSame(
        documented.sort(),
        Object.keys(OPERATIONS)
          .filter((route) => !route.startsWith('HEAD'))
          .sort()
      )
    })

    for (const [route, { success, body }] of Object.entries(OPERATIONS)) {
      const isHead = route.startsWith('HEAD')
      const onTask = route.includes(':taskId')
      // The user's own path has tasks too, so that a list or a create could return the wrong ones.
      const send = (client: typeof alice, user: string, taskId: string) => {
        const { method, url } = fill(route, user, taskId)
        return client(method, url, body)
      }

      t.test(`${route}: the owner succeeds`, async (t) => {
        t.equal((await send(alice, 'alice', await create())).status, success)
      })

      t.test(`${route}: another user's path is 403, and nothing changes`, async (t) => {
        const ids = [await create(), UNKNOWN_ID, 'no-uuid']
        const before = await rowsOf(app)
        await holdsFor(t, 'is 403', ids, async (id) => [
          problemIn(await send(bob, 'alice', id), isHead),
          problem('forbidden', isHead)
        ])
        t.strictSame(await rowsOf(app), before)
      })

      t.test(`${route}: without a valid token it is 401, and nothing changes`, async (t) => {
        const { method, url } = fill(route, 'alice', await create())
        const token = await sign({ sub: 'alice' })
        const before = await rowsOf(app)
        const requests: [url: string, headers: Record<string, string>][] = [
          [url, {}],
          [url, { authorization: '' }],
          [url, { authorization: 'Bearer' }],
          [url, { authorization: 'Bearer x.y.z' }],
          [url, { authorization: `Bearer ${await sign({ sub: 'alice' }, OTHER_SECRET)}` }],
          [url, { authorization: `Bearer ${await sign({ sub: 'alice', exp: 1 })}` }],
          [url, { cookie: `token=${token}` }],
          [`${url}?access_token=${token}`, {}]
        ]
        await holdsFor(t, 'is 401', requests, async ([url, headers]) => [
          problemIn(await request(app, method, url, body, headers), isHead),
          problem('unauthorized', isHead)
        ])
        t.strictSame(await rowsOf(app), before)
      })

      if (!onTask) continue

      t.test(`${route}: another user's task is 404 on the own path, and does not change`, async (t) => {
        const id = await create()
        const before = await rowsOf(app)
        expectProblem(t, await send(bob, 'bob', id), 'not_found', undefined, isHead)
        t.strictSame(await rowsOf(app), before)
      })

      t.test(
        `${route}: the answers for another user's task, a missing one and an id that is no UUID are equal`,
        async (t) => {
          const id = await create()
          await holdsFor(t, 'the answers are the same', [{}, ORIGIN], async (headers) => {
            const [foreign, unknown, noUuid] = await Promise.all(
              [id, UNKNOWN_ID, 'no-uuid'].map(async (taskId) => {
                const { method, url } = fill(route, 'bob', taskId)
                return comparable(await bob(method, url, body, headers))
              })
            )
            return [
              [unknown, noUuid],
              [foreign, { ...foreign, status: 404 }]
            ]
          })
        }
      )
    }

    t.test("no method changes another user's task, or returns anything without a token", async (t) => {
      const id = await create()
      const before = await rowsOf(app)
      const paths = new Set(Object.keys(OPERATIONS).map((route) => route.split(' ')[1]))
      // Node emits CONNECT as another event, not as a request.
      const methods = METHODS.filter((method) => method !== 'CONNECT')
      const routes = [...paths].flatMap((path) => methods.map((method) => `${method} ${path}`))
      await holdsFor(t, '401, then 403 or 405', routes, async (route) => {
        const { method, url } = fill(route, 'alice', id)
        const isHead = method === 'HEAD'
        const body = OPERATIONS[route]?.body
        return [
          [
            problemIn(await request(app, method, url), isHead),
            problemIn(await bob(method, url, body), isHead)
          ],
          [
            problem('unauthorized', isHead),
            problem(route in OPERATIONS ? 'forbidden' : 'method_not_allowed', isHead)
          ]
        ]
      })
      t.strictSame(await rowsOf(app), before)
    })

    t.test('users with similar names see only their own tasks', async (t) => {
      const clients = new Map<string, Client>()
      // Each user has one completed and one pending task.
      const tasks = new Map<string, Task[]>()
      for (const user of ALIKE) {
        const client = await clientOf(app, user)
        const create = async (completed: boolean): Promise<Task> =>
          (await client('POST', '', { title: `of ${user}`, completed })).json
        clients.set(user, client)
        tasks.set(user, [await create(false), await create(true)].reverse())
      }
      const lists = async (user: string) => {
        const client = clients.get(user) as Client
        const all = await Promise.all(
          ['', '?status=completed', '?status=pending'].map((query) => client('GET', query))
        )
        return all.map(({ json }) => json)
      }
      const own = (user: string) => {
        const [completed, pending] = tasks.get(user) as Task[]
        return [[completed, pending], [completed], [pending]]
      }
      await holdsFor(t, 'every list holds the own tasks only', ALIKE, async (user) => [
        await lists(user),
        own(user)
      ])

      const ring = ALIKE.flatMap((user, at) => {
        const next = ALIKE[(at + 1) % ALIKE.length] as string
        return [
          [user, next],
          [next, user]
        ] as [string, string][]
      })
      await holdsFor(
        t,
        'no user reaches a task of the next, or of the one before',
        ring,
        async ([user, other]) => {
          const client = clients.get(user) as Client
          const theirs = tasks.get(other)?.[0]?.id as string
          const path = `/api/${encodeURIComponent(other)}/tasks`
          const requests: [status: number, ...Parameters<Client>][] = [
            [404, 'GET', `/${theirs}`],
            [404, 'PATCH', `/${theirs}`, { title: 'stolen' }],
            [404, 'PUT', `/${theirs}`, { title: 'stolen' }],
            [404, 'PATCH', `/${theirs}/complete`],
            [404, 'DELETE', `/${theirs}`],
            [403, 'GET', path],
            [403, 'GET', `${path}/${theirs}`]
          ]
          const found = []
          for (const [, ...request] of requests) {
            const { status, text } = await client(...request)
            found.push([status, text.includes(theirs) || text.includes(`of ${other}`)])
          }
          return [
            [found, await lists(other)],
            [requests.map(([status]) => [status, false]), own(other)]
          ]
        }
      )
    })

    t.test("another user's path is 403 before any statement is sent", async (t) => {
      await app.db.withAdminConnection((orm) => orm.execute(sql`alter table tasks rename to elsewhere`))
      const operations = Object.entries(OPERATIONS)
      await holdsFor(t, 'bob gets 403 where alice gets an error', operations, async ([route, { body }]) => {
        const { method, url } = fill(route, 'alice', UNKNOWN_ID)
        const [other, owner] = [await bob(method, url, body), await alice(method, url, body)]
        return [
          [other.status, owner.status >= 500],
          [403, true]
        ]
      })
    })
  })
}

t.test('a new route without protection is 401 without a token, and fails this test', async (t) => {
  const routes = routesOfNextApp()
  addToNextApp((app: FastifyInstance) => {
    app.get('/api/open', () => 'open')
    app.post('/elsewhere', () => 'open')
  })
  const app = await startApp(t)
  t.strictSame(unknownRoutes(routes).sort(), ['GET /api/open', 'HEAD /api/open', 'POST /elsewhere'])
  for (const [method, url] of [
    ['GET', '/api/open'],
    ['HEAD', '/api/open'],
    ['POST', '/elsewhere']
  ] as const) {
    expectProblem(t, await request(app, method, url), 'unauthorized', undefined, method === 'HEAD')
  }
  const alice = await clientOf(app, 'alice')
  t.equal((await app.inject({ url: '/api/open', headers: { authorization: 'Bearer x' } })).statusCode, 401)
  const authorization = `Bearer ${await sign({ sub: 'alice' })}`
  t.equal((await app.inject({ url: '/api/open', headers: { authorization } })).body, 'open', 'it is there')
  t.equal((await alice('GET')).status, 200)
})
