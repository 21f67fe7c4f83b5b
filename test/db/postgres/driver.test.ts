import { EventEmitter, once } from 'node:events'
import type { HeapProfiler } from 'node:inspector'
import { Session } from 'node:inspector/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { openClient } from '../../../db/postgres/driver.js'
import { type DatabaseAddress, parseDatabaseUrl } from '../../../db/postgres/url.js'
import { emptyDatabase, sqlClient } from '../../support/databases.js'
import { until } from '../../support/process.js'
import t from '../../support/tap.js'
import { startProxy } from '../../support/tcp-proxy.js'

const STATEMENTS = 2_000
/** Length of each statement's only row. */
const LENGTH = 1_000

/** The size of the objects that were created in functions of this name and in those that they called, in bytes. */
function sizeOf(name: string, node: HeapProfiler.SamplingHeapProfileNode, isWithin = false): number {
  const counts = isWithin || node.callFrame.functionName === name
  return node.children.reduce((sum, child) => sum + sizeOf(name, child, counts), counts ? node.selfSize : 0)
}

t.test('a server that says nothing after the login is refused in time', async (t) => {
  const startedUp = Buffer.concat([
    Buffer.from('R\0\0\0\x08\0\0\0\0', 'latin1'),
    Buffer.from('Z\0\0\0\x05I', 'latin1')
  ])
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.write(startedUp))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const target = parseDatabaseUrl(`postgres://postgres@127.0.0.1:${port}/postgres?sslmode=disable`)
  const client = openClient({ ...target, connectTimeoutMs: 300 }, target.addresses[0] as DatabaseAddress)
  await t.rejects(client, { code: 'ETIMEDOUT' })
})

t.test('a connection knows whether something is in between', async (t) => {
  const isRelayed = async (url: string) => {
    const target = parseDatabaseUrl(url)
    const client = await openClient(target, target.addresses[0] as DatabaseAddress)
    client.destroy()
    return client.isRelayed
  }
  for (const transport of ['plain', 'tls'] as const) {
    const url = await emptyDatabase(t, transport)
    t.equal(await isRelayed(url), false, transport)
    t.equal(await isRelayed((await startProxy(t, url)).url), true, transport)
  }
})

t.test('a connection is refused if a pooler drops the setting of DateStyle', async (t) => {
  const { hostname, port, pathname } = new URL(await emptyDatabase(t, 'plain'))
  const pooler = createServer((client) => {
    const server = connect(Number(port), hostname)
    for (const socket of [client, server]) socket.on('error', () => {})
    client.once('data', (startup) => {
      // Of the same length.
      server.write(startup.toString('latin1').replace('ISO, MDY', 'SQL, DMY'), 'latin1')
      client.pipe(server).pipe(client)
    })
  })
  pooler.listen(0, '127.0.0.1')
  await once(pooler, 'listening')
  t.teardown(() => pooler.close())
  const { port: own } = pooler.address() as AddressInfo
  const target = parseDatabaseUrl(`postgres://postgres@127.0.0.1:${own}${pathname}?sslmode=disable`)
  const client = openClient(target, target.addresses[0] as DatabaseAddress)
  await t.rejects(client, { message: /setting DateStyle: it is SQL, DMY instead of ISO$/ })
})

t.test('a transaction whose connection closes is refused', async (t) => {
  const url = await emptyDatabase(t, 'plain')
  const admin = sqlClient(t, url)
  const target = parseDatabaseUrl(url)
  const open = async (onClosed = () => {}) => {
    const events = { onClosed, onStandbyUnconfirmed() {} }
    const client = await openClient(target, target.addresses[0] as DatabaseAddress, events)
    t.teardown(client.destroy)
    return client
  }
  const end = (pid: number) => admin`select pg_terminate_backend(${pid})`
  const pidOf = async ({ sql }: Awaited<ReturnType<typeof open>>) => {
    const [row] = await sql`select pg_backend_pid() as pid`
    return row?.pid as number
  }

  t.test('between two statements', async (t) => {
    const events = new EventEmitter()
    const closed = once(events, 'closed')
    const client = await open(() => events.emit('closed'))
    const pid = await pidOf(client)
    const transaction = client.sql.begin(async (sql) => {
      await Promise.all([closed, end(pid)])
      await sql`select 1`
    })
    await t.rejects(transaction, { code: 'CONNECTION_CLOSED' })
    for (let n = 0; n < 2; n++)
      await t.rejects(async () => client.query('select 1', []), { code: 'CONNECTION_ENDED' })
  })

  // After a failed statement, the driver sends a rollback in a later turn of the event loop. Whether the socket is closed
  // by then is a matter of chance.
  t.test('in the middle of a statement', async (t) => {
    for (let n = 0; n < 20; n++) {
      const client = await open()
      const pid = await pidOf(client)
      const transaction = drizzle(client.sql).transaction((tx) => tx.execute('select pg_sleep(60)'))
      const refused = t.rejects(transaction)
      await until(async () => {
        const [row] =
          await admin`select 1 from pg_stat_activity where pid = ${pid} and wait_event = 'PgSleep'`
        return row !== undefined
      })
      await end(pid)
      await refused
    }
  })
})

// A minor garbage collection treats all old objects as alive, and so what they refer to.
t.test('no old object refers to the rows of a statement that has ended', async (t) => {
  setFlagsFromString('--expose-gc')
  const gc: (options: { type: 'minor' }) => void = runInNewContext('gc')
  const target = parseDatabaseUrl(await emptyDatabase(t))
  const client = await openClient(target, target.addresses[0] as DatabaseAddress)
  t.teardown(client.destroy)
  const session = new Session()
  session.connect()
  t.teardown(() => session.disconnect())

  const kept: unknown[] = []
  /** The size of the rows that survived, in bytes. */
  async function survived(keep: boolean): Promise<number> {
    await session.post('HeapProfiler.startSampling', {
      samplingInterval: 1_024,
      includeObjectsCollectedByMajorGC: true
    })
    for (let n = 0; n < STATEMENTS; n++) {
      const rows = await client.query('select repeat($1, $2) as text', ['a', LENGTH])
      if (keep) kept.push(rows)
      if (n % 50 === 0) gc({ type: 'minor' })
    }
    const { profile } = await session.post('HeapProfiler.stopSampling')
    return sizeOf('DataRow', profile.head)
  }
  t.ok((await survived(false)) < (STATEMENTS * LENGTH) / 4)
  t.ok((await survived(true)) > (STATEMENTS * LENGTH) / 2)
})
