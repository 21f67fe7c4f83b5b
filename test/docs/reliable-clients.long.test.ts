import { createServer, type RequestListener, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { clientOf, onEachDatabase, sign } from '../support/api.js'
import { lossyProxy } from '../support/lossy-proxy.js'
import { blocksOf } from '../support/markdown.js'
import t, { type Test } from '../support/tap.js'

interface Code {
  createTask(task: object): Promise<Response>
  setCompleted(id: string, completed: boolean): Promise<Response>
  edit(id: string, change: (task: { title: string }) => object): Promise<Response>
  refresh(id: string, known: { etag: string; task: object }): Promise<{ etag: string; task: object }>
}

/**
 * The functions on the page, as a reader would paste them.
 *
 * @param timer their `setTimeout`
 */
function load(token: string, tasks: string, timer: object = setTimeout): Code {
  const code = blocksOf('docs/reliable-clients.md')
    .filter(({ language }) => language === 'js')
    .map(({ code }) => code)
  const source = `${code.join('\n')}\nreturn { createTask, setCompleted, edit, refresh }`
  return new Function('token', 'tasks', 'setTimeout', source)(token, tasks, timer)
}

/** Starts a server on a port of its own. It ends with the test. */
async function serve(t: Test, answer: RequestListener): Promise<string> {
  const server = createServer(answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A proxy that rewrites every ETag, like one that compresses. */
const rewritingProxy = (t: Test, target: string, rewrite: (tag: string) => string) =>
  serve(t, (incoming, outgoing) => {
    const { method, url, headers } = incoming
    const passed = request(new URL(url as string, target), { method, headers }, (answer) => {
      const { etag } = answer.headers
      outgoing.writeHead(answer.statusCode as number, {
        ...answer.headers,
        ...(etag && { etag: rewrite(etag) })
      })
      answer.pipe(outgoing)
    })
    incoming.pipe(passed)
  })

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const token = await sign({ sub: 'alice' })
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  const here = load(token, `${url}/api/alice/tasks`)
  const newTask = async (title: string) => (await alice('POST', '', { title })).json.id as string
  const titleOf = async (id: string) => (await alice('GET', `/${id}`)).json.title

  t.test(
    'with every third answer lost, a client that retries with keys creates exactly its tasks',
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

  t.test("the page's edit function overwrites no other change", async (t) => {
    const id = await newTask('0')
    const increment = ({ title }: { title: string }) => ({ title: String(Number(title) + 1) })
    const answers = await Promise.all(Array.from({ length: 10 }, () => here.edit(id, increment)))
    t.ok(answers.every(({ status }) => status === 200))
    t.equal(await titleOf(id), '10')
  })

  for (const [proxy, rewrite] of [
    ['nginx', (tag: string) => `W/${tag}`],
    ['Apache', (tag: string) => tag.replace(/"$/, '-gzip"')]
  ] as const) {
    t.test(`behind ${proxy}, which compresses, both do the same`, async (t) => {
      const there = load(token, `${await rewritingProxy(t, url, rewrite)}/api/alice/tasks`)
      const id = await newTask('0')
      const increment = ({ title }: { title: string }) => ({ title: String(Number(title) + 1) })
      const answers = await Promise.all(Array.from({ length: 10 }, () => there.edit(id, increment)))
      t.ok(answers.every(({ status }) => status === 200))
      t.equal(await titleOf(id), '10')

      const etag = (await there.edit(id, () => ({ title: 'last' }))).headers.get('etag') as string
      t.equal(etag, rewrite('"12"'))
      const known = { etag, task: { title: 'last' } }
      t.equal(await there.refresh(id, known), known)
    })
  }

  t.test("the page's refresh function keeps its copy until the task changes", async (t) => {
    const id = await newTask('old')
    const known = { etag: '"1"', task: { title: 'old' } }
    t.equal(await here.refresh(id, known), known)
    await alice('PATCH', `/${id}`, { title: 'new' })
    t.match(await here.refresh(id, known), { etag: '"2"', task: { title: 'new' } })
  })
})

t.test("the page's functions end with any answer of the service", async (t) => {
  const waits: number[] = []
  const timer = (resolve: () => void, milliseconds: number) => {
    waits.push(milliseconds)
    setImmediate(resolve)
  }
  const requests: string[] = []
  const at = async (answer: RequestListener) => {
    waits.length = 0
    requests.length = 0
    return load(
      'a token',
      await serve(t, (incoming, outgoing) => {
        requests.push(incoming.method as string)
        answer(incoming, outgoing)
      }),
      timer
    )
  }
  const refuses =
    (status: number): RequestListener =>
    (_, outgoing) =>
      outgoing.writeHead(status).end()
  const waited = () => {
    t.ok(waits.every((wait) => wait >= 0 && wait <= 5_000))
    return waits.length
  }

  t.test('503 for ever', async (t) => {
    t.equal((await (await at(refuses(503))).createTask({ title: 'a' })).status, 503)
    t.equal(requests.length, 8)
    t.equal(waited(), 7)
  })

  t.test('no answer ever', async (t) => {
    const client = await at((incoming) => incoming.socket.destroy())
    await t.rejects(client.setCompleted('1', true), { message: 'fetch failed' })
    t.equal(requests.length, 8)
    t.equal(waited(), 7)
  })

  t.test('412 for ever', async (t) => {
    const client = await at(({ method }, outgoing) =>
      outgoing.writeHead(method === 'GET' ? 200 : 412, { etag: '"1"' }).end('{}')
    )
    t.equal((await client.edit('1', () => ({ title: 'a' }))).status, 412)
    t.strictSame(requests, Array(10).fill(['GET', 'PATCH']).flat())
    t.equal(waited(), 9)
  })
})
