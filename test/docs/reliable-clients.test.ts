import { clientOf, onEachDatabase, sign } from '../support/api.js'
import { lossyProxy } from '../support/lossy-proxy.js'
import { blocksOf } from '../support/markdown.js'

interface Code {
  createTask(task: object): Promise<Response>
  setCompleted(id: string, completed: boolean): Promise<Response>
  edit(id: string, change: (task: { title: string }) => object): Promise<Response>
  refresh(id: string, known: { etag: string; task: object }): Promise<{ etag: string; task: object }>
}

/** The functions on the page, as a reader would paste them. */
function load(token: string, tasks: string): Code {
  const code = blocksOf('docs/reliable-clients.md')
    .filter(({ language }) => language === 'js')
    .map(({ code }) => code)
  const source = `${code.join('\n')}\nreturn { createTask, setCompleted, edit, refresh }`
  return new Function('token', 'tasks', source)(token, tasks)
}

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const token = await sign({ sub: 'alice' })
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  const here = load(token, `${url}/api/alice/tasks`)
  const newTask = async (title: string) => (await alice('POST', '', { title })).json.id as string
  const titleOf = async (id: string) => (await alice('GET', `/${id}`)).json.title

  t.test(
    'with every third answer lost, a client that retries with keys ends with exactly the tasks it meant',
    async (t) => {
      const proxy = await lossyProxy(t, url, 3)
      const client = load(token, `${proxy.url}/api/alice/tasks`)
      const meant = Array.from({ length: 60 }, (_, i) => `task ${i}`)
      const answers = await Promise.all(meant.map((title) => client.createTask({ title })))
      t.ok(answers.every(({ status }) => status === 201))
      t.ok(proxy.lost() >= 20, `${proxy.lost()} answers were lost`)
      const tasks: { id: string; title: string; completed: boolean }[] = (await alice('GET')).json
      t.strictSame(tasks.map(({ title }) => title).sort(), meant.sort())

      t.comment('and the toggle with an explicit state likewise')
      const done = tasks.filter((_, i) => i % 2 === 0).map(({ id }) => id)
      const lostBefore = proxy.lost()
      await Promise.all(done.map((id) => client.setCompleted(id, true)))
      t.ok(proxy.lost() > lostBefore)
      const completed: { id: string }[] = (await alice('GET', '?status=completed')).json
      t.strictSame(completed.map(({ id }) => id).sort(), done.sort())
    }
  )

  t.test('the edit that the page shows overwrites nobody', async (t) => {
    const id = await newTask('0')
    const increment = ({ title }: { title: string }) => ({ title: String(Number(title) + 1) })
    const answers = await Promise.all(Array.from({ length: 10 }, () => here.edit(id, increment)))
    t.ok(answers.every(({ status }) => status === 200))
    t.equal(await titleOf(id), '10')
  })

  t.test('the refresh that the page shows keeps what it knows until the task changes', async (t) => {
    const id = await newTask('old')
    const known = { etag: '"1"', task: { title: 'old' } }
    t.equal(await here.refresh(id, known), known)
    await alice('PATCH', `/${id}`, { title: 'new' })
    t.match(await here.refresh(id, known), { etag: '"2"', task: { title: 'new' } })
  })
})
