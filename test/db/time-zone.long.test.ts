import { clientOf, SECRET, sign, startApp } from '../support/api.js'
import { emptyDatabase, sqlClient } from '../support/databases.js'
import { startProcess } from '../support/process.js'
import t from '../support/tap.js'

t.test('times are UTC with milliseconds, in any time zone of the database and the process', async (t) => {
  const url = await emptyDatabase(t)
  const name = new URL(url).pathname.slice(1)
  const sql = sqlClient(t, url)
  await sql.unsafe(`alter database ${name} set TimeZone to 'Asia/Kolkata'`)
  await sql.unsafe(`alter database ${name} set DateStyle to 'German, DMY'`)
  const fresh = sqlClient(t, url)
  t.match((await fresh`select now()::text as now`)[0]?.now, /^\d\d\.\d\d\.\d{4}.* IST$/, 'the settings hold')

  const env = { JWT_SECRET: SECRET, DATABASE_URL: url, TZ: 'America/St_Johns' }
  const { api } = await (await startProcess(t, env)).ready()
  const headers = { authorization: `Bearer ${await sign({ sub: 'alice' })}` }
  const created = await fetch(`${api}/api/alice/tasks`, {
    method: 'POST',
    headers: { ...headers, 'content-type': 'application/json' },
    body: JSON.stringify({ title: 'a', completed: true })
  })
  t.equal(created.status, 201)
  const task = (await created.json()) as Record<string, string>
  const path = `${api}/api/alice/tasks/${task.id}`
  const toggle = async () =>
    (await (await fetch(`${path}/complete`, { method: 'PATCH', headers })).json()) as Record<string, string>
  const pending = await toggle()
  const completed = await toggle()
  t.equal(pending.completed_at, null)
  const told = [
    task.created_at,
    task.completed_at,
    pending.updated_at,
    completed.updated_at,
    completed.completed_at
  ]
  for (const timestamp of told) {
    t.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    t.ok(Math.abs(Date.parse(timestamp as string) - Date.now()) < 60_000, `${timestamp} is now`)
  }
  t.ok(String(pending.updated_at) > String(task.updated_at))
  t.ok(String(completed.updated_at) > String(pending.updated_at))
  t.strictSame(await (await fetch(path, { headers })).json(), completed)

  // A service in another time zone reads the same timestamps.
  const here = await clientOf(await startApp(t, 'postgres', { DATABASE_URL: url }), 'alice')
  t.strictSame((await here('GET', `/${task.id}`)).json, completed)

  // A fixed time, not the database's clock.
  await fresh`update tasks set created_at = '2026-03-29 02:30:00.5+00', updated_at = '2026-10-25 01:30:00.123+00'`
  const expected = { created_at: '2026-03-29T02:30:00.500Z', updated_at: '2026-10-25T01:30:00.123Z' }
  t.match(await (await fetch(path, { headers })).json(), expected)
  t.match((await here('GET', `/${task.id}`)).json, expected)
})
