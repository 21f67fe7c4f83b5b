// The baseline of the ratios: node:http and postgres.js, written by hand. It has no framework, validation, logs or
// metrics. The driver prepares statements by default.
import { createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'
import postgres from 'postgres'
import { v7 as uuidv7 } from 'uuid'

const { DATABASE_POOL_MAX, DATABASE_URL, JWT_SECRET, PORT } = process.env
const sql = postgres(DATABASE_URL, { max: Number(DATABASE_POOL_MAX) })
const PATH = /^\/api\/([^/?]+)\/tasks(?:\/([^/?]+)(\/complete)?)?$/

createServer(async (request, response) => {
  try {
    const [status, body] = await answer(request)
    const json = JSON.stringify(body)
    response
      .writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(json) })
      .end(json)
  } catch (error) {
    console.error(error)
    response.writeHead(500).end()
  }
}).listen(Number(PORT), '127.0.0.1', () => console.log(`node:http on ${PORT}`))

async function answer(request) {
  const claims = verify(request.headers.authorization)
  if (!claims) return [401, { detail: 'A valid bearer token is required.' }]
  const [, userId, id, complete] = PATH.exec(request.url) ?? []
  if (!userId) return [404, { detail: 'Not found.' }]
  const user = decodeURIComponent(userId)
  if (user !== claims.sub) return [403, { detail: 'The user in the path is not the user of the token.' }]

  if (!id) return request.method === 'POST' ? create(user, await read(request)) : list(user)
  if (request.method === 'GET')
    return one(
      await sql`select id, user_id, title, description, completed, completed_at, created_at, updated_at from tasks where user_id = ${user} and id = ${id}`
    )
  if (complete) return toggle(user, id)
  return update(user, id, await read(request))
}

/** Checks an HS256 token. Returns the claims, or undefined. */
function verify(authorization) {
  if (!authorization?.startsWith('Bearer ')) return undefined
  const token = authorization.slice(7)
  const dot = token.lastIndexOf('.')
  const signed = token.slice(0, dot)
  const expected = createHmac('sha256', JWT_SECRET).update(signed).digest()
  const signature = Buffer.from(token.slice(dot + 1), 'base64url')
  if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) return undefined
  const [header, payload] = signed
    .split('.')
    .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()))
  return header.alg === 'HS256' && payload.exp > Date.now() / 1000 ? payload : undefined
}

const one = ([task]) => (task ? [200, task] : [404, { detail: 'There is no such task.' }])

async function list(user) {
  return [
    200,
    await sql`select id, user_id, title, description, completed, completed_at, created_at, updated_at from tasks where user_id = ${user} order by id desc`
  ]
}

async function create(user, { title, description = null, completed = false }) {
  const [task] = await sql`
    insert into tasks (user_id, id, title, description, completed, completed_at)
    values (${user}, ${uuidv7()}, ${title}, ${description}, ${completed}, ${completed ? new Date() : null})
    returning id, user_id, title, description, completed, completed_at, created_at, updated_at`
  return [201, task]
}

async function update(user, id, { title = null, description, completed = null }) {
  return one(
    await sql`
    update tasks set
      title = coalesce(${title}, title),
      description = case when ${description !== undefined}::boolean then ${description ?? null} else description end,
      completed = coalesce(${completed}, completed),
      completed_at = case when coalesce(${completed}, completed) then coalesce(completed_at, now()) end,
      updated_at = now()
    where user_id = ${user} and id = ${id}
    returning id, user_id, title, description, completed, completed_at, created_at, updated_at`
  )
}

async function toggle(user, id) {
  return one(
    await sql`
    update tasks set
      completed = not completed,
      completed_at = case when not completed then now() end,
      updated_at = now()
    where user_id = ${user} and id = ${id}
    returning id, user_id, title, description, completed, completed_at, created_at, updated_at`
  )
}

async function read(request) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  return JSON.parse(Buffer.concat(chunks).toString())
}
