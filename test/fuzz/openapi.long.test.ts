import type { AddressInfo } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import type { FastifyInstance } from 'fastify'
import { rowsOf, startApp } from '../support/api.js'
import { KINDS } from '../support/databases.js'
import t from '../support/tap.js'
import { makeUsers } from './concrete.js'
import { documentOf, validatorOf } from './document.js'
import { draftsOf } from './drafts.js'
import { AGAIN, REQUESTS, SEED } from './settings.js'
import { Wire } from './wire.js'
import { World, WrongAnswer } from './world.js'

/** Number of requests between two reads of every list. */
const COMPARE_EVERY = 20

t.test(
  `${REQUESTS} requests made from the document get documented answers, the same from both databases`,
  async (t) => {
    t.comment(AGAIN)
    const apps: FastifyInstance[] = []
    // One after the other, because the embedded database blocks the process while it starts.
    for (const kind of KINDS) apps.push(await startApp(t, kind))
    const document = documentOf(apps[0] as FastifyInstance)
    const validate = validatorOf(document)
    const worlds = await Promise.all(
      apps.map(async (app) => {
        await app.listen({ host: '127.0.0.1', port: 0 })
        const wire = new Wire((app.server.address() as AddressInfo).port)
        t.teardown(() => wire.close())
        return new World(wire, await makeUsers(), document, validate)
      })
    )

    const drafts = fc.sample(draftsOf(document, validate), { seed: SEED, numRuns: REQUESTS })
    let index = 0
    try {
      for (; index < drafts.length; index++) {
        const answers = await Promise.all(
          worlds.map((world) => world.send(drafts[index] as (typeof drafts)[0]))
        )
        if (!isDeepStrictEqual(answers[0], answers[1])) {
          throw new WrongAnswer(`${KINDS.join(' and ')} differ: ${JSON.stringify(answers, null, 2)}`)
        }
        if ((index + 1) % COMPARE_EVERY === 0) for (const world of worlds) await world.compareLists()
      }
      for (const world of worlds) await world.compareLists()
    } catch (error) {
      if (!(error instanceof WrongAnswer)) throw error
      const [what, ...found] = error.message.split('\n')
      for (const line of [...found, `draft ${JSON.stringify(drafts[index])}`, `again ${AGAIN}`])
        t.comment(line)
      t.fail(`request ${index} of seed ${SEED}: ${what}`)
    }

    for (const [n, app] of apps.entries()) {
      const ids = (await rowsOf(app)).map(({ id }) => id)
      t.strictSame(
        ids,
        worlds[n]?.users.flatMap(({ tasks }) => tasks.map(({ task }) => task.id)).sort(),
        `nothing else is in the ${KINDS[n]} database`
      )
    }
    const seen = [...(worlds[0] as World).seen].sort()
    t.comment(seen.map(([name, count]) => `${name}: ${count}`).join(', '))
    t.strictSame(
      [index, seen.reduce((sum, [, count]) => sum + count, 0)],
      [REQUESTS, REQUESTS],
      'all were sent'
    )

    // Some answers need several rare conditions.
    const skip = REQUESTS < 10_000 && 'only with 10,000 requests or more'
    t.test('every documented answer was seen, except those of a failing service', { skip }, async (t) => {
      // A path that cannot be decoded belongs to no operation, and a list has no other bad request.
      const elsewhere = (name: string) => name === 'listTasks 400' || / (405|408|431)$/.test(name)
      for (const operation of Object.values(document.paths).flatMap((item) => Object.values(item))) {
        for (const status of Object.keys(operation.responses).filter((one) => Number(one) < 500)) {
          const name = `${operation.operationId} ${status}`
          if (!elsewhere(name)) t.ok((worlds[0] as World).seen.has(name), name)
        }
      }
    })
  }
)
