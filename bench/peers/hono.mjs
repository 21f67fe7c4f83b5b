// Hono on Node with its own JWT middleware and its zod validator, written as in its documentation. Drizzle uses its
// default driver, node-postgres with a pool of 10.
import { serve } from '@hono/node-server'
import { zValidator } from '@hono/zod-validator'
import { and, desc, eq, not, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { boolean, pgTable, primaryKey, text, timestamp, uuid } from 'drizzle-orm/pg-core'
import { Hono } from 'hono'
import { createMiddleware } from 'hono/factory'
import { jwt } from 'hono/jwt'
import { v7 as uuidv7 } from 'uuid'
import * as z from 'zod'

const { DATABASE_URL, JWT_SECRET, PORT } = process.env
const db = drizzle(DATABASE_URL)

const utcTimestamp = () => timestamp({ withTimezone: true, precision: 3 })
const tasks = pgTable(
  'tasks',
  {
    user_id: text().notNull(),
    id: uuid().notNull(),
    title: text().notNull(),
    description: text(),
    completed: boolean().notNull(),
    completed_at: utcTimestamp(),
    created_at: utcTimestamp().notNull().defaultNow(),
    updated_at: utcTimestamp().notNull().defaultNow()
  },
  (table) => [primaryKey({ columns: [table.user_id, table.id] })]
)

const TaskParams = z.object({ userId: z.string(), taskId: z.uuid() })
const CreateTask = z.object({
  title: z.string().min(1).max(200),
  description: z.string().max(10_000).nullish(),
  completed: z.boolean().optional()
})
const UpdateTask = CreateTask.partial()

const requireOwner = createMiddleware(async (c, next) => {
  if (c.req.param('userId') !== c.get('jwtPayload').sub) {
    return c.json({ detail: 'The user in the path is not the user of the token.' }, 403)
  }
  await next()
})

const user = (c) => c.get('jwtPayload').sub
const ownTask = (c) => and(eq(tasks.user_id, user(c)), eq(tasks.id, c.req.valid('param').taskId))
const one = (c, [task]) => (task ? c.json(task) : c.json({ detail: 'There is no such task.' }, 404))

const app = new Hono()
app.use('/api/:userId/tasks/*', jwt({ secret: JWT_SECRET, alg: 'HS256' }), requireOwner)

app.get('/api/:userId/tasks', async (c) =>
  c.json(
    await db
      .select()
      .from(tasks)
      .where(eq(tasks.user_id, user(c)))
      .orderBy(desc(tasks.id))
  )
)

app.post('/api/:userId/tasks', zValidator('json', CreateTask), async (c) => {
  const { title, description, completed = false } = c.req.valid('json')
  const [task] = await db
    .insert(tasks)
    .values({
      user_id: user(c),
      id: uuidv7(),
      title,
      description,
      completed,
      completed_at: completed ? new Date() : null
    })
    .returning()
  return c.json(task, 201)
})

app.get('/api/:userId/tasks/:taskId', zValidator('param', TaskParams), async (c) =>
  one(c, await db.select().from(tasks).where(ownTask(c)))
)

app.patch(
  '/api/:userId/tasks/:taskId',
  zValidator('param', TaskParams),
  zValidator('json', UpdateTask),
  async (c) => {
    const changes = c.req.valid('json')
    if (changes.completed !== undefined) {
      changes.completed_at = changes.completed ? sql`coalesce(${tasks.completed_at}, now())` : null
    }
    return one(
      c,
      await db
        .update(tasks)
        .set({ ...changes, updated_at: new Date() })
        .where(ownTask(c))
        .returning()
    )
  }
)

app.patch('/api/:userId/tasks/:taskId/complete', zValidator('param', TaskParams), async (c) =>
  one(
    c,
    await db
      .update(tasks)
      .set({
        completed: not(tasks.completed),
        completed_at: sql`case when not ${tasks.completed} then now() end`,
        updated_at: new Date()
      })
      .where(ownTask(c))
      .returning()
  )
)

serve({ fetch: app.fetch, port: Number(PORT), hostname: '127.0.0.1' }, () => console.log(`Hono on ${PORT}`))
