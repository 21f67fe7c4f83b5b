// Express 5 with pg, jsonwebtoken and zod, written as in their documentation.
import express from 'express'
import jwt from 'jsonwebtoken'
import pg from 'pg'
import { v7 as uuidv7 } from 'uuid'
import * as z from 'zod'

const { DATABASE_URL, JWT_SECRET, PORT } = process.env
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 })

const TaskId = z.uuid()
const CreateTask = z.object({
  title: z.string().min(1).max(200),
  description: z.string().max(10_000).nullish(),
  completed: z.boolean().optional()
})
const UpdateTask = CreateTask.partial()

function authenticate(request, response, next) {
  const [scheme, token] = (request.headers.authorization ?? '').split(' ')
  try {
    if (scheme !== 'Bearer') throw new Error('no bearer token')
    request.user = jwt.verify(token, JWT_SECRET, { algorithms: ['HS256'] })
  } catch {
    return response.status(401).json({ detail: 'A valid bearer token is required.' })
  }
  next()
}

function requireOwner(request, response, next) {
  if (request.params.userId === request.user.sub) return next()
  response.status(403).json({ detail: 'The user in the path is not the user of the token.' })
}

function send(response, { rows: [task] }) {
  if (!task) return response.status(404).json({ detail: 'There is no such task.' })
  response.json(task)
}

const tasks = express.Router({ mergeParams: true })

tasks.get('/', async (request, response) => {
  const { rows } = await pool.query(
    'select id, user_id, title, description, completed, completed_at, created_at, updated_at from tasks where user_id = $1 order by id desc',
    [request.user.sub]
  )
  response.json(rows)
})

tasks.post('/', async (request, response) => {
  const { title, description, completed = false } = CreateTask.parse(request.body)
  const { rows } = await pool.query(
    `insert into tasks (user_id, id, title, description, completed, completed_at)
     values ($1, $2, $3, $4, $5, $6) returning id, user_id, title, description, completed, completed_at, created_at, updated_at`,
    [request.user.sub, uuidv7(), title, description, completed, completed ? new Date() : null]
  )
  response.status(201).json(rows[0])
})

tasks.get('/:taskId', async (request, response) => {
  const id = TaskId.parse(request.params.taskId)
  send(
    response,
    await pool.query(
      'select id, user_id, title, description, completed, completed_at, created_at, updated_at from tasks where user_id = $1 and id = $2',
      [request.user.sub, id]
    )
  )
})

tasks.patch('/:taskId', async (request, response) => {
  const id = TaskId.parse(request.params.taskId)
  const { title, description, completed } = UpdateTask.parse(request.body)
  send(
    response,
    await pool.query(
      `update tasks set
         title = coalesce($3, title),
         description = case when $4::boolean then $5 else description end,
         completed = coalesce($6, completed),
         completed_at = case when coalesce($6, completed) then coalesce(completed_at, now()) end,
         updated_at = now()
       where user_id = $1 and id = $2 returning id, user_id, title, description, completed, completed_at, created_at, updated_at`,
      [request.user.sub, id, title, description !== undefined, description, completed]
    )
  )
})

tasks.patch('/:taskId/complete', async (request, response) => {
  const id = TaskId.parse(request.params.taskId)
  send(
    response,
    await pool.query(
      `update tasks set
         completed = not completed,
         completed_at = case when not completed then now() end,
         updated_at = now()
       where user_id = $1 and id = $2 returning id, user_id, title, description, completed, completed_at, created_at, updated_at`,
      [request.user.sub, id]
    )
  )
})

const app = express()
app.use(express.json())
app.use('/api/:userId/tasks', authenticate, requireOwner, tasks)
app.use((error, _request, response, next) => {
  if (response.headersSent) return next(error)
  if (error instanceof z.ZodError) return response.status(422).json({ detail: z.prettifyError(error) })
  console.error(error)
  response.status(error.status ?? 500).json({ detail: 'The request failed.' })
})
app.listen(Number(PORT), '127.0.0.1', () => console.log(`Express on ${PORT}`))
