import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { type Answer, clientOf, expectProblem, onEachDatabase, sign } from '../support/api.js'
import { bytesOf, type Sent } from './sent.js'
import { Wire } from './wire.js'

/** Max Woolf's Big List of Naughty Strings, which have broken other services. */
const STRINGS: string[] = createRequire(import.meta.url)('big-list-of-naughty-strings')

const isTitle = (text: string) => [...text].length <= 200 && /\S/.test(text)

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const titles = STRINGS.filter(isTitle)
  t.ok(titles.length > 400 && titles.length < STRINGS.length, 'the list has both kinds')
  /** One field of every task, oldest first. */
  const listed = async (field: string) =>
    (await alice('GET')).json.map((task: Answer['json']) => task[field]).reverse()
  // The titles have no texts, because some would break the test's report.
  const nameOf = (text: string) => `string ${STRINGS.indexOf(text)}`

  t.test('each as a title: stored exactly, or 422', async (t) => {
    for (const title of STRINGS) {
      const answer = await alice('POST', '', { title })
      if (isTitle(title)) t.ok(answer.status === 201 && answer.json.title === title, nameOf(title))
      else expectProblem(t, answer, 'validation_failed', nameOf(title))
    }
    t.ok(isSame(await listed('title'), titles), 'and each reads back')
  })

  t.test('each as a description: stored exactly', async (t) => {
    const bob = await clientOf(app, 'bob')
    const { json: task } = await bob('POST', '', { title: 'a' })
    for (const description of STRINGS) {
      const created = await alice('POST', '', { title: 'a', description })
      t.ok(created.status === 201 && created.json.description === description, nameOf(description))
      const changed = await bob('PATCH', `/${task.id}`, { description })
      t.ok(
        changed.status === 200 && changed.json.description === description,
        `${nameOf(description)}, set later`
      )
    }
    t.ok(isSame((await listed('description')).slice(titles.length), STRINGS), 'and each reads back')
  })

  t.test('each as the id of a user with an own list', async (t) => {
    await app.listen({ host: '127.0.0.1', port: 0 })
    const wire = new Wire((app.server.address() as AddressInfo).port)
    t.teardown(() => wire.close())
    const users = [...new Set(STRINGS)].filter((text) => text !== '')
    t.ok(users.every((text) => [...text].length <= 255))
    const ask = async (user: string, method: string, body?: object) => {
      const headers: Sent['headers'] = [['Authorization', `Bearer ${await sign({ sub: user })}`]]
      if (body) headers.push(['Content-Type', 'application/json'])
      const target = `/api/${encodeURIComponent(user)}/tasks`
      return wire.ask(
        bytesOf({ method, target, headers, body: body && Buffer.from(JSON.stringify(body)) }),
        false
      )
    }
    for (const user of users) {
      const { status, json } = await ask(user, 'POST', { title: `of ${users.indexOf(user)}` })
      t.ok(status === 201 && json.user_id === user, nameOf(user))
    }
    for (const [n, user] of users.entries()) {
      const { json } = await ask(user, 'GET')
      t.ok(json.length === 1 && json[0].user_id === user && json[0].title === `of ${n}`, nameOf(user))
    }
  })
})

const isSame = (some: string[], others: string[]) =>
  some.length === others.length && some.every((text, n) => text === others[n])
