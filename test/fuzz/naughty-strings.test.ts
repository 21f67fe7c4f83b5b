import { createRequire } from 'node:module'
import { type Answer, clientOf, isProblem, onEachDatabase } from '../support/api.js'

/** Max Woolf's Big List of Naughty Strings: what has broken other services before. */
const STRINGS: string[] = createRequire(import.meta.url)('big-list-of-naughty-strings')

const isTitle = (text: string) => [...text].length <= 200 && /\S/.test(text)

onEachDatabase(async (t, app) => {
  const alice = await clientOf(app, 'alice')
  const titles = STRINGS.filter(isTitle)
  t.ok(titles.length > 400 && titles.length < STRINGS.length, 'the list has both kinds')
  // Such as the title of every task, newest last.
  const listed = async (field: string) =>
    (await alice('GET')).json.map((task: Answer['json']) => task[field]).reverse()

  t.test('each as a title: stored exactly, or 422', async (t) => {
    for (const title of STRINGS) {
      const answer = await alice('POST', '', { title })
      if (isTitle(title))
        t.strictSame([answer.status, answer.json.title], [201, title], JSON.stringify(title))
      else isProblem(t, answer, 'validation_failed', JSON.stringify(title))
    }
    t.strictSame(await listed('title'), titles, 'and reads back')
  })

  t.test('each as a description, set later: stored exactly', async (t) => {
    const ids: string[] = await listed('id')
    t.equal(ids.length, titles.length)
    for (const [n, id] of ids.entries()) {
      const description = STRINGS[n]
      const answer = await alice('PATCH', `/${id}`, { description })
      t.strictSame([answer.status, answer.json.description], [200, description], JSON.stringify(description))
    }
    t.strictSame(await listed('description'), STRINGS.slice(0, ids.length), 'and reads back')
    for (const description of STRINGS.slice(ids.length)) {
      const { status, json } = await alice('POST', '', { title: 'a', description })
      t.strictSame([status, json.description], [201, description], JSON.stringify(description))
      t.strictSame((await alice('GET', `/${json.id}`)).json, json)
    }
  })

  t.test('each as the id of a user, who has a list of her own', async (t) => {
    const users = [...new Set(STRINGS)].filter((text) => text !== '' && [...text].length <= 255)
    t.ok(users.length > 400)
    for (const user of users) {
      const { status, json } = await (await clientOf(app, user))('POST', '', {
        title: user.slice(0, 9).trim() || 'a'
      })
      t.strictSame([status, json.user_id], [201, user], JSON.stringify(user))
    }
    for (const user of users) {
      const { json } = await (await clientOf(app, user))('GET')
      t.strictSame(
        json.map((task: Answer['json']) => task.user_id),
        [user],
        JSON.stringify(user)
      )
    }
  })
})
