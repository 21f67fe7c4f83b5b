import { readFileSync } from 'node:fs'
import { type ConnectionOptions, checkServerIdentity } from 'node:tls'
import postgres from 'postgres'
import { openDatabase } from '../../db/index.js'
import { authorityFile, emptyDatabase, sqlClient, TRANSPORTS, urlOver } from './databases.js'
import { startPostgres } from './postgres-server.js'
import t from './tap.js'

for (const transport of TRANSPORTS) {
  t.test(`a database over ${transport} accepts only connections of that kind`, async (t) => {
    const url = await emptyDatabase(t, transport)
    const db = await openDatabase({ kind: 'postgres', url })
    t.teardown(() => db.close())
    await db.ping(5_000)
    const sql = sqlClient(t, url)
    const rows = await sql`
      select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid)
      where datname = current_database() and application_name = 'tasks-api'`
    t.strictSame(
      rows.map(({ ssl }) => ssl),
      [transport === 'tls']
    )
  })
}

/** Connects over TLS, and requires a certificate for this name. */
async function ask(url: string, authority: string, name: string) {
  const ssl: ConnectionOptions = {
    ca: readFileSync(authority, 'utf8'),
    checkServerIdentity: (_, certificate) => checkServerIdentity(name, certificate)
  }
  const sql = postgres(url, { max: 1, ssl })
  try {
    return await sql`select 1 as one`
  } finally {
    await sql.end({ timeout: 1 })
  }
}

t.test('the certificate is for 127.0.0.1 and localhost, and its authority can be trusted', async (t) => {
  const url = await emptyDatabase(t)
  for (const name of ['127.0.0.1', 'localhost']) {
    t.strictSame([...(await ask(url, authorityFile(), name))], [{ one: 1 }], name)
  }
  await t.rejects(ask(url, authorityFile(), 'db.example.com'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
})

t.test('the certificate can be replaced while clients are connected', async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const there = sqlClient(t, urlOver('tls', server.url('postgres')))
  await there`select`
  const again = () => ask(server.url('postgres'), server.authority, 'localhost')
  await server.useCertificate({ isExpired: true })
  await t.rejects(again(), { code: 'CERT_HAS_EXPIRED' })
  await server.useCertificate({ names: ['db.example.com'], addresses: [] })
  await t.rejects(again(), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
  await server.useCertificate()
  t.strictSame([...(await again())], [{ one: 1 }])
  await there`select`
})
