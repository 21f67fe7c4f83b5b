// Bun's own server, router and SQL client, written as in its documentation.
import { randomUUIDv7, SQL, serve } from 'bun'
import { verifier } from './hs256.mjs'

const { DATABASE_URL, JWT_SECRET, PORT } = process.env
const sql = new SQL({ url: DATABASE_URL, max: 10 })
const verify = verifier(JWT_SECRET)

/** Calls the handler only for the token's own user. */
const owned = (handler) => (request) => {
  const claims = verify(request.headers.get('authorization'))
  if (!claims) return Response.json({ detail: 'A valid bearer token is required.' }, { status: 401 })
  if (request.params.userId !== claims.sub) {
    return Response.json({ detail: 'The user in the path is not the user of the token.' }, { status: 403 })
  }
  return handler(request, claims.sub)
}

const one = ([task]) =>
  task ? Response.json(task) : Response.json({ detail: 'There is no such task.' }, { status: 404 })

serve({
  port: Number(PORT),
  hostname: '127.0.0.1',
  routes: {
    '/api/:userId/tasks': {
      GET: owned(async (_request, user) =>
        // A copy, because the array of rows also has the command and the count.
        Response.json([
          ...(await sql`select id, user_id, title, description, completed, completed_at, created_at, updated_at from tasks where user_id = ${user} order by id desc`)
        ])
      ),
      POST: owned(async (request, user) => {
        const { title, description = null, completed = false } = await request.json()
        const [task] = await sql`
          insert into tasks (user_id, id, title, description, completed, completed_at)
          values (${user}, ${randomUUIDv7()}, ${title}, ${description}, ${completed}, ${completed ? new Date() : null})
          returning id, user_id, title, description, completed, completed_at, created_at, updated_at`
        return Response.json(task, { status: 201 })
      })
    },
    '/api/:userId/tasks/:taskId': {
      GET: owned(async ({ params }, user) =>
        one(
          await sql`select id, user_id, title, description, completed, completed_at, created_at, updated_at from tasks where user_id = ${user} and id = ${params.taskId}`
        )
      ),
      PATCH: owned(async (request, user) => {
        const { title = null, description, completed = null } = await request.json()
        return one(
          await sql`
          update tasks set
            title = coalesce(${title}, title),
            description = case when ${description !== undefined}::boolean then ${description ?? null} else description end,
            completed = coalesce(${completed}, completed),
            completed_at = case when coalesce(${completed}, completed) then coalesce(completed_at, now()) end,
            updated_at = now()
          where user_id = ${user} and id = ${request.params.taskId}
          returning id, user_id, title, description, completed, completed_at, created_at, updated_at`
        )
      })
    },
    '/api/:userId/tasks/:taskId/complete': {
      PATCH: owned(async ({ params }, user) =>
        one(
          await sql`
          update tasks set
            completed = not completed,
            completed_at = case when not completed then now() end,
            updated_at = now()
          where user_id = ${user} and id = ${params.taskId}
          returning id, user_id, title, description, completed, completed_at, created_at, updated_at`
        )
      )
    }
  },
  fetch: () => Response.json({ detail: 'Not found.' }, { status: 404 })
})
console.log(`Bun on ${PORT}`)
