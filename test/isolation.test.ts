import { METHODS } from 'node:http'
import { sql } from 'drizzle-orm'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import {
  type Answer,
  addToNextApp,
  clientOf,
  isProblem,
  onNextApp,
  request,
  rowsOf,
  sign,
  startApp
} from './support/api.js'
import { KINDS } from './support/databases.js'
import { UNKNOWN_ID } from './support/refusals.js'

/** Each route of the API, with a request that succeeds for the owner of the task. */
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
/** @fastify/cors answers preflights here, which carry no token. */
const PREFLIGHT = 'OPTIONS *'

/** The routes that the next app has, in the form "GET /path", filled while it is built. */
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

/** A route as a request line: for the user in the path, and the task. */
function fill(route: string, user: string, taskId: string) {
  const [method, path] = route.split(' ') as [string, string]
  return { method, url: path.replace(':userId', encodeURIComponent(user)).replace(':taskId', taskId) }
}

/** What must not differ between two answers. */
const comparable = ({ status, headers, text }: Answer) => {
  const { 'x-request-id': _id, date: _date, ...rest } = headers
  return { status, headers: rest, text }
}

const ORIGIN = { origin: 'http://localhost:5173' }

for (const kind of KINDS) {
  t.test(`on the ${kind} database`, async (t) => {
    const routes = routesOfNextApp()
    const app = await startApp(t, kind)
    const alice = await clientOf(app, 'alice')
    const bob = await clientOf(app, 'bob')
    const create = async () => (await alice('POST', '', { title: "alice's" })).json.id

    t.test('every route of the API is in the table of this test', async (t) => {
      t.strictSame(unknownRoutes(routes), [])
      t.strictSame(
        Object.keys(OPERATIONS).filter((route) => !routes.has(route)),
        []
      )
      // The document tells the same, but for HEAD.
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
      // On a path of its own, so that a list or a create has something to miss.
      const send = (client: typeof alice, user: string, taskId: string) => {
        const { method, url } = fill(route, user, taskId)
        return client(method, url, body)
      }

      t.test(`${route}: the owner succeeds`, async (t) => {
        t.equal((await send(alice, 'alice', await create())).status, success)
      })

      t.test(`${route}: another user's path is 403, and nothing changes`, async (t) => {
        const id = await create()
        const before = await rowsOf(app)
        isProblem(t, await send(bob, 'alice', id), 'forbidden', undefined, isHead)
        isProblem(t, await send(bob, 'alice', UNKNOWN_ID), 'forbidden', undefined, isHead)
        isProblem(t, await send(bob, 'alice', 'no-uuid'), 'forbidden', undefined, isHead)
        t.strictSame(await rowsOf(app), before)
      })

      t.test(`${route}: without a valid token it is 401, and nothing changes`, async (t) => {
        const id = await create()
        const before = await rowsOf(app)
        const { method, url } = fill(route, 'alice', id)
        for (const headers of [
          {},
          { authorization: '' },
          { authorization: 'Bearer' },
          { authorization: 'Bearer x.y.z' },
          {
            authorization: `Bearer ${await sign({ sub: 'alice' }, 'another secret, of a length that is enough')}`
          },
          { authorization: `Bearer ${await sign({ sub: 'alice', exp: 1 })}` },
          { cookie: `token=${await sign({ sub: 'alice' })}` }
        ] as Record<string, string>[]) {
          isProblem(t, await request(app, method, url, body, headers), 'unauthorized', undefined, isHead)
        }
        const inQuery = `${url}?access_token=${await sign({ sub: 'alice' })}`
        isProblem(t, await request(app, method, inQuery, body), 'unauthorized', undefined, isHead)
        t.strictSame(await rowsOf(app), before)
      })

      if (!onTask) continue

      t.test(`${route}: another user's task is 404 on the own path, and does not change`, async (t) => {
        const id = await create()
        const before = await rowsOf(app)
        isProblem(t, await send(bob, 'bob', id), 'not_found', undefined, isHead)
        t.strictSame(await rowsOf(app), before)
      })

      t.test(`${route}: no answer tells another user's task from none, or from no UUID`, async (t) => {
        const id = await create()
        for (const headers of [{}, ORIGIN]) {
          const [foreign, unknown, noUuid] = await Promise.all(
            [id, UNKNOWN_ID, 'no-uuid'].map(async (taskId) => {
              const { method, url } = fill(route, 'bob', taskId)
              return comparable(await bob(method, url, body, headers))
            })
          )
          t.equal(foreign?.status, 404)
          t.strictSame(unknown, foreign)
          t.strictSame(noUuid, foreign)
        }
      })
    }

    t.test('no method reaches anything without a token, or changes anything of another user', async (t) => {
      const id = await create()
      const before = await rowsOf(app)
      for (const path of new Set(Object.keys(OPERATIONS).map((route) => route.split(' ')[1]))) {
        for (const method of METHODS) {
          // CONNECT never becomes a request.
          if (method === 'CONNECT') continue
          const { url } = fill(`${method} ${path}`, 'alice', id)
          const isHead = method === 'HEAD'
          isProblem(t, await request(app, method, url), 'unauthorized', `${method} ${url}`, isHead)
          const exists = `${method} ${path}` in OPERATIONS
          const answer = await bob(
            method,
            url,
            method === 'POST' || method === 'PUT' ? { title: 'b' } : undefined
          )
          // A PATCH without a body breaks its schema before it is asked whose path it is.
          if (exists && answer.status === 422) t.equal(method, 'PATCH')
          else isProblem(t, answer, exists ? 'forbidden' : 'method_not_allowed', `${method} ${url}`, isHead)
        }
      }
      t.strictSame(await rowsOf(app), before)
    })

    t.test('users whose names look alike each see their own tasks and no others', async (t) => {
      const users = [
        'alice2',
        'Alice2',
        'alice2 ',
        ' alice2',
        'alice2%20',
        'alice2%2520',
        'alice2+',
        'alice2\u200b',
        'ALICE2',
        'a',
        'b',
        'a/b',
        'a%2fb',
        'a%2Fb',
        'caf\u00e9',
        'cafe\u0301',
        'straße',
        'strasse',
        "a' or '1'='1",
        'a_',
        'a%',
        '*',
        'null',
        'undefined',
        '__proto__',
        'me',
        '1',
        '01'
      ]
      const all = await Promise.all(
        users.map(async (user) => {
          const client = await clientOf(app, user)
          const tasks = []
          for (const completed of [false, true]) {
            tasks.unshift((await client('POST', '', { title: `of ${user}`, completed })).json)
          }
          return { user, client, tasks }
        })
      )
      for (const { user, client, tasks } of all) {
        t.strictSame((await client('GET')).json, tasks, user)
        t.strictSame((await client('GET', '?status=completed')).json, [tasks[0]])
        t.strictSame((await client('GET', '?status=pending')).json, [tasks[1]])
        for (const other of all) {
          if (other === all.find((one) => one.user === user)) continue
          const theirs = other.tasks[0].id
          const answers = [
            [404, await client('GET', `/${theirs}`)],
            [404, await client('PATCH', `/${theirs}`, { title: 'stolen' })],
            [404, await client('PUT', `/${theirs}`, { title: 'stolen' })],
            [404, await client('PATCH', `/${theirs}/complete`)],
            [404, await client('DELETE', `/${theirs}`)],
            [403, await client('GET', `/api/${encodeURIComponent(other.user)}/tasks`)],
            [403, await client('GET', `/api/${encodeURIComponent(other.user)}/tasks/${theirs}`)]
          ] as const
          t.strictSame(
            answers.map(([, { status }]) => status),
            answers.map(([status]) => status),
            `${user} asks for what is ${other.user}'s`
          )
          t.notOk(answers.some(([, { text }]) => text.includes(theirs) || text.includes(`of ${other.user}`)))
        }
      }
      for (const { client, tasks } of all) t.strictSame((await client('GET')).json, tasks, 'all is as it was')
    })

    t.test("another user's path is 403 before the database is asked anything", async (t) => {
      await app.db.administer((orm) => orm.execute(sql`alter table tasks rename to elsewhere`))
      for (const [route, { body }] of Object.entries(OPERATIONS)) {
        const { method, url } = fill(route, 'alice', UNKNOWN_ID)
        t.equal((await bob(method, url, body)).status, 403, route)
        t.equal((await alice(method, url, body)).status, 503, 'it would have failed')
      }
    })
  })
}

t.test(
  'a route that is added without any protection is 401 without a token, and fails this test',
  async (t) => {
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
      isProblem(t, await request(app, method, url), 'unauthorized', undefined, method === 'HEAD')
    }
    const alice = await clientOf(app, 'alice')
    t.equal((await app.inject({ url: '/api/open', headers: { authorization: 'Bearer x' } })).statusCode, 401)
    const authorization = `Bearer ${await sign({ sub: 'alice' })}`
    t.equal((await app.inject({ url: '/api/open', headers: { authorization } })).body, 'open', 'it is there')
    t.equal((await alice('GET')).status, 200)
  }
)
