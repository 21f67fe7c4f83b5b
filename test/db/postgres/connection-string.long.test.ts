import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { openDatabase } from '../../../db/index.js'
import { openClient } from '../../../db/postgres/driver.js'
import { type DatabaseAddress, parseDatabaseUrl } from '../../../db/postgres/url.js'
import { causeOf } from '../../../db/sqlstate.js'
import { makeAuthority, type Subject } from '../../support/certificates.js'
import { sqlClient } from '../../support/databases.js'
import { startPostgres } from '../../support/postgres-server.js'
import t from '../../support/tap.js'

const directory = mkdtempSync(join(tmpdir(), 'tasks-socket-'))
chmodSync(directory, 0o777)
const server = await startPostgres({ unix_socket_directories: directory })
t.teardown(async () => {
  await server.stop()
  rmSync(directory, { recursive: true, force: true })
})
const { port, authority: CA } = server
const admin = sqlClient(t, server.url('postgres'))

const at = (host: string, query = '') => `postgres://postgres@${host}:${port}/postgres?${query}`

interface Session {
  ssl: boolean
  dn: string | null
  user: string
  name: string
  timeout: string
}

/** Connects with this URL, and returns what the server knows about the connection. */
async function connected(url: string): Promise<Session> {
  const db = await openDatabase({ kind: 'postgres', url })
  try {
    const rows = await db.withAdminConnection((orm) =>
      orm.execute(sql`
        select ssl, client_dn as dn, current_user as user, current_setting('application_name') as name,
          current_setting('statement_timeout') as timeout
        from pg_stat_ssl where pid = pg_backend_pid()`)
    )
    return (rows as unknown as Session[])[0] as Session
  } finally {
    await db.close()
  }
}

/** Returns true if the connection uses TLS, or the code of the error. */
async function transport(url: string): Promise<string> {
  try {
    return (await connected(url)).ssl ? 'TLS' : 'plain text'
  } catch (error) {
    const { code, message } = causeOf(error) as Error & { code?: string }
    return code ?? message
  }
}

/** Changes a setting of the running server. */
async function configure(name: string, value: string): Promise<void> {
  await admin.unsafe(`alter system set ${name} = '${value}'`)
  await admin`select pg_reload_conf()`
  while ((await admin`select setting from pg_settings where name = ${name}`)[0]?.setting !== value)
    await setTimeout(20)
}

const WRONG_HOST = 'ERR_TLS_CERT_ALTNAME_INVALID'
// The second authority has the name of the first, which is trusted.
const UNKNOWN_ISSUER = /^(UNABLE_TO_VERIFY_LEAF_SIGNATURE|CERT_SIGNATURE_FAILURE)$/
const EXPIRED = 'CERT_HAS_EXPIRED'

const certificates: [what: string, subject: Subject, byName: string, byAddress: string, byIssuer: string][] =
  [
    ['for the name and the address', {}, 'TLS', 'TLS', 'TLS'],
    ['for the name only', { addresses: [] }, 'TLS', WRONG_HOST, 'TLS'],
    ['for the address only', { names: ['db.example.com'] }, WRONG_HOST, 'TLS', 'TLS'],
    ['for another address', { addresses: ['127.0.0.2'] }, 'TLS', WRONG_HOST, 'TLS'],
    ['for another name', { names: ['db.example.com'], addresses: [] }, WRONG_HOST, WRONG_HOST, 'TLS'],
    ['that has expired', { isExpired: true }, EXPIRED, EXPIRED, EXPIRED]
  ]

for (const [what, subject, byName, byAddress, byIssuer] of certificates) {
  t.test(`verify-full and verify-ca check a certificate ${what}`, async (t) => {
    await server.useCertificate(subject)
    t.teardown(() => server.useCertificate())
    const full = `sslmode=verify-full&sslrootcert=${CA}`
    t.equal(await transport(at('localhost', full)), byName, 'verify-full by name')
    t.equal(await transport(at('127.0.0.1', full)), byAddress, 'verify-full by address')
    const issuer = `sslmode=verify-ca&sslrootcert=${CA}`
    t.equal(await transport(at('127.0.0.1', issuer)), byIssuer, 'verify-ca')
    if (subject.isExpired !== true) return
    for (const query of [`sslmode=require&sslrootcert=${CA}`, `channel_binding=require&sslrootcert=${CA}`]) {
      t.equal(await transport(at('127.0.0.1', query)), EXPIRED, query)
    }
    for (const query of ['sslmode=require', `sslmode=no-verify&sslrootcert=${CA}`, 'sslmode=prefer']) {
      t.equal(await transport(at('127.0.0.1', query)), 'TLS', query)
    }
  })
}

t.test('a certificate of an authority that is not trusted is refused', async (t) => {
  const another = t.testdir({ 'ca.crt': makeAuthority().certificate })
  for (const query of [
    'sslmode=verify-full',
    'sslrootcert=system',
    'channel_binding=require',
    `sslmode=verify-full&sslrootcert=${another}/ca.crt`,
    `sslmode=verify-ca&sslrootcert=${another}/ca.crt`,
    `sslmode=require&sslrootcert=${another}/ca.crt`
  ]) {
    t.match(await transport(at('localhost', query)), UNKNOWN_ISSUER, query)
  }
})

t.test('a server with TLS is used with it, unless the URL disables TLS', async (t) => {
  for (const query of ['', 'sslmode=prefer', 'sslmode=allow', 'sslmode=require']) {
    t.equal(await transport(at('127.0.0.1', query)), 'TLS', query)
  }
  for (const query of ['sslmode=disable', 'ssl=false']) {
    t.equal(await transport(at('127.0.0.1', query)), 'plain text', query)
  }
})

t.test('a server without TLS is used only if sslmode does not require it', async (t) => {
  const plain = await startPostgres({ ssl: 'off' })
  t.teardown(() => plain.stop())
  const urlWith = (query: string) => `postgres://postgres@127.0.0.1:${plain.port}/postgres?${query}`
  for (const query of ['', 'sslmode=prefer', 'sslmode=allow', 'sslmode=disable']) {
    t.equal(await transport(urlWith(query)), 'plain text', query)
  }
  for (const query of [
    'sslmode=require',
    `sslmode=verify-full&sslrootcert=${CA}`,
    'channel_binding=require'
  ]) {
    t.equal(await transport(urlWith(query)), 'the server does not support TLS', query)
  }
})

t.test('a Unix socket is used without TLS, with any sslmode', async (t) => {
  const encoded = encodeURIComponent(directory)
  for (const url of [
    `postgres://postgres@/postgres?host=${directory}&port=${port}`,
    `postgres://postgres@localhost:${port}/postgres?host=${directory}&schema=public`,
    `postgresql://postgres@${encoded}:${port}/postgres`,
    `postgresql://postgres@${encoded}:${port}/postgres?sslmode=require`
  ]) {
    t.equal(await transport(url), 'plain text', url)
  }
  const target = parseDatabaseUrl(`postgres://postgres@${encoded}:${port}/postgres`)
  const client = await openClient(target, target.addresses[0] as DatabaseAddress)
  client.destroy()
  t.equal(client.isRelayed, false)
})

t.test('sslnegotiation=direct starts with TLS', async (t) => {
  for (const query of ['sslmode=require', `sslmode=verify-full&sslrootcert=${CA}`]) {
    t.equal(await transport(at('localhost', `sslnegotiation=direct&${query}`)), 'TLS', query)
  }
})

t.test('the URL limits the versions of TLS', async (t) => {
  await configure('ssl_max_protocol_version', 'TLSv1.2')
  t.teardown(() => configure('ssl_max_protocol_version', ''))
  t.equal(await transport(at('localhost', 'sslmode=require&ssl_max_protocol_version=TLSv1.2')), 'TLS')
  const query = 'sslmode=require&ssl_min_protocol_version=TLSv1.3'
  t.match(await transport(at('localhost', query)), /PROTOCOL_VERSION/)
})

t.test('the client certificate of the URL is sent', async (t) => {
  const authority = makeAuthority()
  const { certificate, key } = authority.issue()
  const files = t.testdir({ 'client.crt': certificate, 'client.key': key })
  writeFileSync(join(directory, 'clients.crt'), authority.certificate)
  await configure('ssl_ca_file', join(directory, 'clients.crt'))
  const query = `sslmode=require&sslcert=${files}/client.crt&sslkey=${files}/client.key`
  t.match(await connected(at('127.0.0.1', query)), { ssl: true, dn: '/CN=Test server' })
  t.match(await connected(at('127.0.0.1', 'sslmode=require')), { ssl: true, dn: null })
})

t.test('a user and a password with special characters log in', async (t) => {
  const [file] = await admin`show hba_file`
  const hba = file?.hba_file as string
  const before = readFileSync(hba, 'utf8')
  const name = 'us:er@a/b%é'
  const password = 'p@ss/w?rd#%:+é '
  await admin.unsafe(`create role "${name}" login password '${password}'`)
  writeFileSync(hba, `host all "${name}" all scram-sha-256\n${before}`)
  await admin`select pg_reload_conf()`
  t.teardown(() => writeFileSync(hba, before))
  const url = (secret: string) =>
    `postgres://${encodeURIComponent(name)}:${encodeURIComponent(secret)}@127.0.0.1:${port}/postgres`
  while ((await transport(url('wrong'))) !== '28P01') await setTimeout(20)
  t.match(await connected(url(password)), { user: name })
  // psql reads its password from this variable. The service must not.
  process.env.PGPASSWORD = password
  t.teardown(() => {
    delete process.env.PGPASSWORD
  })
  t.equal(await transport(url('')), '28P01')
  const inQuery = `user=${encodeURIComponent(name)}&password=${encodeURIComponent(password)}`
  t.match(await connected(`postgres://127.0.0.1:${port}/postgres?${inQuery}`), { user: name })
})

t.test('start-up parameters of the URL reach the server', async (t) => {
  t.match(await connected(at('127.0.0.1')), { name: 'tasks-api', timeout: '0' })
  const query = 'application_name=mine&options=-c%20statement_timeout%3D7s'
  t.match(await connected(at('127.0.0.1', query)), { name: 'mine', timeout: '7s' })
})
