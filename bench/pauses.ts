import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { freePort } from '../test/support/postgres-server.js'
import { openBenchDatabase } from './database.js'
import { makeUsers, seed, type Users } from './dataset.js'
import { operations } from './operations.js'
import { DEFAULT_POOL, knownServers, type ServerKind, startServer } from './servers.js'

// The answers while the service is paused again and again, as by a moved virtual machine.
//
//   npm run build && npm run bench:pauses -- [--pauses 12] [--compare folder]

const CLIENTS = 32
const PAUSE_MS = 3_000
const BETWEEN_MS = 1_500
/** Longer than a list that is read at once. */
const LONG_LIST = 2_000

const { values } = parseArgs({
  options: { pauses: { type: 'string', default: '12' }, compare: { type: 'string' } }
})
const ends: (() => unknown)[] = []

/** Pauses a server, and counts the answers: by operation, status and reason. */
async function countAnswers(name: string, kind: ServerKind, url: string, users: Users): Promise<void> {
  const OPS_PORT = String(await freePort())
  // One of the readers has a long list.
  const lists = { ...users, readers: users.readers.slice(0, 1) }
  const server = await startServer(name, { ...kind, env: { ...kind.env, OPS_PORT } }, url)
  ends.push(server.stop)
  const counts: Record<string, number> = {}
  const count = (key: string) => {
    counts[key] = (counts[key] ?? 0) + 1
  }
  let isOver = false
  const names = ['get', 'list', 'create', 'update'] as const
  const clients = Array.from({ length: CLIENTS }, async (_, n) => {
    const operation = names[n % names.length] as (typeof names)[number]
    while (!isOver) {
      const { method, path, headers, body } = operations[operation].request(
        operation === 'list' ? lists : users
      )
      try {
        const answer = await fetch(server.url + path, {
          method,
          headers,
          ...(body !== undefined && { body })
        })
        await answer.text()
        count(`${operation} ${answer.status}`)
      } catch (error) {
        count(`${operation} broken off: ${(error as Error).message}`)
      }
    }
  })
  for (let n = 0; n < Number(values.pauses); n++) {
    await sleep(BETWEEN_MS)
    process.kill(server.pid, 'SIGSTOP')
    await sleep(PAUSE_MS)
    process.kill(server.pid, 'SIGCONT')
  }
  await sleep(BETWEEN_MS)
  isOver = true
  await Promise.all(clients)
  const metrics = await (await fetch(`http://127.0.0.1:${OPS_PORT}/metrics`)).text()
  console.log(`${kind.label}:`, counts)
  console.log(metrics.match(/^(database_statement_\w+_total|http_requests_shed_total).* [1-9]\d*$/gm))
}

try {
  const database = await openBenchDatabase()
  ends.push(database.close)
  const sql = postgres(database.url, { max: 1, onnotice: () => {} })
  ends.push(() => sql.end())
  await seed(sql)
  const users = await makeUsers()
  await sql`
    insert into tasks (user_id, id, title, completed)
    select ${users.readers[0]?.id as string}, gen_random_uuid(), 'Task of a long list', false
    from generate_series(1, ${LONG_LIST}::int)`
  for (const [name, kind] of Object.entries(knownServers(DEFAULT_POOL, values.compare))) {
    if (name === 'ours' || name === 'compare') await countAnswers(name, kind, database.url, users)
  }
} finally {
  for (const end of ends.reverse()) await end()
}
