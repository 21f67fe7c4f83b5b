import { writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import type { PeerCertificate } from 'node:tls'
import { parseDatabaseUrl } from '../../../db/postgres/url.js'
import { makeAuthority } from '../../support/certificates.js'
import { authorityFile } from '../../support/databases.js'
import { codeOf, rowsOf } from '../../support/markdown.js'
import t from '../../support/tap.js'

const PAGE = 'docs/connection-string.md'
const HOST = 'db.example.com'
const URL = `postgres://app:s3cretpassword@${HOST}/tasks`

const files = t.testdir({ 'garbage.pem': 'no certificate' })
const client = makeAuthority().issue()
const [CA, CERT, KEY] = [authorityFile(), join(files, 'client.crt'), join(files, 'client.key')]
writeFileSync(CERT, client.certificate)
writeFileSync(KEY, client.key)

/** The result of parsing a URL, in a form that can be compared. */
function read(url: string) {
  const { tls, ...rest } = parseDatabaseUrl(url)
  if (tls === undefined) return { ...rest, tls: 'no' }
  const { rejectUnauthorized, checkServerIdentity, servername, ALPNProtocols } = tls.optionsFor(HOST)
  const another = { subject: { CN: 'another' }, subjectaltname: 'DNS:another' } as PeerCertificate
  const isForHost = checkServerIdentity?.(HOST, another) !== undefined
  const checked = rejectUnauthorized ? (isForHost ? 'issuer and host' : 'issuer') : 'unchecked'
  const kind = `${tls.required ? 'required' : 'preferred'}, ${checked}${tls.direct ? ', direct' : ''}`
  t.strictSame([servername, ALPNProtocols], [HOST, tls.direct ? ['postgresql'] : undefined])
  return { ...rest, tls: kind }
}

/** Refused in one sentence that shows no password. */
function refusal(url: string): string {
  try {
    parseDatabaseUrl(url)
  } catch (error) {
    const { message } = error as Error
    t.notMatch(message, /s3cret|[\r\n]/)
    return message
  }
  return 'accepted'
}

const TASKS = {
  addresses: [{ host: HOST, port: 5432 }],
  user: 'app',
  password: 's3cretpassword',
  database: 'tasks',
  connectTimeoutMs: undefined,
  settings: {},
  tls: 'preferred, unchecked'
}

t.test("the page's connection string of every provider is parsed", async (t) => {
  const [REQUIRED, VERIFIED] = ['required, unchecked', 'required, issuer and host']
  const at = (host: string, port = 5432) => ({ addresses: [{ host, port }] })
  const app = { ...TASKS, password: 'secret' }
  const supabase = { ...app, user: 'postgres.abcdefghijklmnopqrst', database: 'postgres' }
  const pooler = 'aws-0-us-east-1.pooler.supabase.com'
  const cloudSql = { addresses: [{ path: '/cloudsql/project:region:instance/.s.PGSQL.5432' }], tls: 'no' }

  const meanings: Record<string, object> = {
    Neon: {
      ...app,
      ...at('ep-cool-rain-123456-pooler.us-east-2.aws.neon.tech'),
      database: 'neondb',
      tls: VERIFIED
    },
    'Supabase, direct': { ...supabase, ...at('db.abcdefghijklmnopqrst.supabase.co'), user: 'postgres' },
    'Supabase, session pooler': { ...supabase, ...at(pooler) },
    'Supabase, dedicated pooler': {
      ...supabase,
      ...at('db.abcdefghijklmnopqrst.supabase.co', 6543),
      user: 'postgres'
    },
    'Supabase by Vercel': { ...supabase, ...at(pooler), tls: REQUIRED },
    'Amazon RDS and Aurora': {
      ...app,
      ...at('tasks.abcdefghijkl.us-east-1.rds.amazonaws.com'),
      tls: VERIFIED
    },
    'Cloud SQL, socket': { ...app, ...cloudSql },
    'Cloud SQL, socket, as Prisma writes it': { ...app, ...cloudSql },
    Heroku: { ...app, ...at('ec2-12-34-56-78.compute-1.amazonaws.com'), database: 'd1a2b3c4' },
    'Azure, flexible server': { ...app, ...at('tasks.postgres.database.azure.com'), tls: REQUIRED },
    Prisma: app,
    Railway: {
      ...app,
      ...at('roundhouse.proxy.rlwy.net', 12345),
      user: 'postgres',
      database: 'railway'
    },
    'Render, external': { ...app, ...at('dpg-abcdefghijklmnopqrst-a.oregon-postgres.render.com') },
    DigitalOcean: {
      ...app,
      ...at('db-postgresql-nyc3-12345-do-user-1234567-0.b.db.ondigitalocean.com', 25060),
      user: 'doadmin',
      database: 'defaultdb',
      tls: REQUIRED
    },
    Aiven: {
      ...app,
      ...at('pg-1a2b3c4d-project.a.aivencloud.com', 12691),
      user: 'avnadmin',
      database: 'defaultdb',
      tls: REQUIRED
    },
    'Fly.io': { ...app, ...at('tasks-db.flycast'), tls: 'no' },
    'your own, with two servers': {
      ...app,
      addresses: [
        { host: 'db1.example.com', port: 5432 },
        { host: 'db2.example.com', port: 5433 }
      ]
    },
    'your own, on a Unix socket': {
      ...app,
      addresses: [{ path: '/var/run/postgresql/.s.PGSQL.5432' }],
      tls: 'no'
    }
  }
  const rows = rowsOf(PAGE, ['provider', 'connection string'])
  t.strictSame(
    rows.map(([provider]) => provider),
    Object.keys(meanings)
  )
  for (const [provider = '', cell] of rows) {
    const [url = ''] = codeOf(cell)
    t.strictSame(read(url.replace('/certs/global-bundle.pem', CA)), meanings[provider], provider)
  }
})

t.test("every parameter in the page's table has the effect that the table says", async (t) => {
  const VERIFIED = 'required, issuer and host'
  // The rows that are neither ignored nor refused.
  const effects: Record<string, [also: string, meaning: object]> = {
    'sslmode=disable': ['', { tls: 'no' }],
    'sslmode=prefer': ['', {}],
    'sslmode=allow': ['', {}],
    'sslmode=require': ['', { tls: 'required, unchecked' }],
    'sslmode=no-verify': [`&sslrootcert=${CA}`, { tls: 'required, unchecked' }],
    'sslmode=verify-ca': [`&sslrootcert=${CA}`, { tls: 'required, issuer' }],
    'sslmode=verify-full': ['', { tls: VERIFIED }],
    'ssl=true': ['', { tls: 'required, unchecked' }],
    'ssl=1': ['&sslmode=verify-full', { tls: VERIFIED }],
    'ssl=require': ['', { tls: 'required, unchecked' }],
    'ssl=false': ['', { tls: 'no' }],
    'ssl=0': ['', { tls: 'no' }],
    'sslrootcert=system': ['', { tls: VERIFIED }],
    'sslrootcert=/path/ca.crt': ['&sslmode=require', { tls: 'required, issuer' }],
    'sslcert=/path/client': [`&sslkey=${KEY}`, {}],
    'sslkey=/path/client': [`&sslcert=${CERT}`, {}],
    'sslpassword=/path/client': [`&sslcert=${CERT}&sslkey=${KEY}`, {}],
    'sslnegotiation=direct': ['&sslmode=require', { tls: 'required, unchecked, direct' }],
    'ssl_min_protocol_version=TLSv1.2': ['', {}],
    'ssl_min_protocol_version=TLSv1.3': ['', {}],
    'ssl_max_protocol_version=TLSv1.2': ['', {}],
    'ssl_max_protocol_version=TLSv1.3': ['', {}],
    'channel_binding=require': ['', { tls: VERIFIED }],
    'connect_timeout=10': ['', { connectTimeoutMs: 10_000 }],
    'application_name=tasks': ['', { settings: { application_name: 'tasks' } }],
    'fallback_application_name=tasks': ['', { settings: { application_name: 'tasks' } }],
    'options=-c statement_timeout=5s': ['', { settings: { options: '-c statement_timeout=5s' } }]
  }
  const places: Record<string, string> = {
    'sslrootcert=/path/ca.crt': CA,
    'sslcert=/path/client': CERT,
    'sslkey=/path/client': KEY
  }
  const effective: string[] = []
  const rows = rowsOf(PAGE, ['parameter', 'value', 'here'])
  for (const [names, values, here = ''] of rows.slice(1)) {
    for (const name of codeOf(names)) {
      for (const value of codeOf(values)) {
        const parameter = `${name}=${value}`
        const url = `${URL}?${name}=${encodeURIComponent(places[parameter] ?? value)}`
        if (/\bRefused/.test(here)) t.match(refusal(url), new RegExp(`^${name} `), parameter)
        else if (/\bIgnored/.test(here)) t.strictSame(read(url), TASKS, parameter)
        else {
          effective.push(parameter)
          const [also, meaning] = effects[parameter] ?? []
          t.strictSame(read(url + also), { ...TASKS, ...meaning }, parameter)
        }
      }
    }
  }
  t.strictSame(effective, Object.keys(effects))
  t.strictSame(codeOf(rows[0]?.[0]), ['host', 'port', 'user', 'password', 'dbname'])
})

t.test('the page has every parameter of libpq 18', async (t) => {
  const named = new Set(rowsOf(PAGE, ['parameter', 'value', 'here']).flatMap(([names]) => codeOf(names)))
  // https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-PARAMKEYWORDS
  const libpq = `host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout
    client_encoding options application_name fallback_application_name keepalives keepalives_idle
    keepalives_interval keepalives_count tcp_user_timeout replication gssencmode sslmode sslnegotiation
    sslcompression sslcert sslkey sslkeylogfile sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni
    requirepeer ssl_min_protocol_version ssl_max_protocol_version min_protocol_version max_protocol_version
    krbsrvname gsslib gssdelegation scram_client_key scram_server_key service servicefile target_session_attrs
    load_balance_hosts oauth_issuer oauth_client_id oauth_client_secret oauth_scope`
  t.strictSame(
    libpq.split(/\s+/).filter((name) => !named.has(name)),
    []
  )
})

t.test('a URL is parsed as libpq parses it', async (t) => {
  const at = (host: string, port = 5432) => ({ addresses: [{ host, port }] })
  const socket = (path: string) => ({ addresses: [{ path }], tls: 'no' })
  const me = userInfo().username
  const cases: [url: string, meaning: object][] = [
    ['postgresql://app:s3cretpassword@db.example.com/tasks', {}],
    // Percent-encoded characters stand for themselves.
    [
      'postgres://us%3Aer%40a%2Fb:p%40ss%2Fw%3Frd%23%25%3A+%C3%A9%20@db.example.com/my%2Ftasks',
      { user: 'us:er@a/b', password: 'p@ss/w?rd#%:+é ', database: 'my/tasks' }
    ],
    // Characters that are not encoded, but unambiguous.
    [
      'postgres://app@server:p@ss:w?rd#1[2]@db.example.com/tasks',
      { user: 'app@server', password: 'p@ss:w?rd#1[2]' }
    ],
    // libpq's defaults.
    ['postgres://', { ...at('localhost'), user: me, password: '', database: me }],
    ['postgres://db.example.com', { user: me, password: '', database: me }],
    ['postgres://app@db.example.com', { password: '', database: 'app' }],
    ['postgres://app:@db.example.com/', { password: '', database: 'app' }],
    ['postgres://:s3cretpassword@db.example.com/tasks', { user: me }],
    ['postgres://db.example.com?user=app&password=s3cretpassword', { database: 'app' }],
    ['postgres:///tasks', { ...at('localhost'), user: me, password: '' }],
    ['postgres://app:s3cretpassword@:6432/tasks', at('localhost', 6432)],
    ['postgres://app:s3cretpassword@db.example.com:/tasks', {}],
    // Addresses.
    ['postgres://app:s3cretpassword@[::1]/tasks', at('::1')],
    ['postgres://app:s3cretpassword@[2001:db8::1%25eth0]:6432/tasks', at('2001:db8::1%eth0', 6432)],
    ['postgres://app:s3cretpassword@/tasks?host=2001:db8::1', at('2001:db8::1')],
    ['postgres://app:s3cretpassword@10.0.0.1:6432/tasks', at('10.0.0.1', 6432)],
    [
      'postgres://app:s3cretpassword@a,[::1]:1,b:65535/tasks',
      { addresses: [...at('a').addresses, ...at('::1', 1).addresses, ...at('b', 65535).addresses] }
    ],
    [
      'postgres://app:s3cretpassword@a:1,b:2/tasks?host=c,d',
      { addresses: [...at('c', 1).addresses, ...at('d', 2).addresses] }
    ],
    [
      'postgres://app:s3cretpassword@/tasks?host=a,b&port=6432',
      { addresses: [...at('a', 6432).addresses, ...at('b', 6432).addresses] }
    ],
    [
      'postgres://app:s3cretpassword@/tasks?host=a,b&port=,6432',
      { addresses: [...at('a').addresses, ...at('b', 6432).addresses] }
    ],
    // Unix sockets, which never use TLS.
    ['postgres://app:s3cretpassword@%2Fvar%2Frun/tasks', socket('/var/run/.s.PGSQL.5432')],
    [
      'postgres://app:s3cretpassword@%2Fvar%2Frun:6432/tasks?sslmode=require',
      socket('/var/run/.s.PGSQL.6432')
    ],
    ['postgres://app:s3cretpassword@x:6432/tasks?host=/var/run', socket('/var/run/.s.PGSQL.6432')],
    [
      'postgres://app:s3cretpassword@%2Frun,db.example.com/tasks',
      { addresses: [{ path: '/run/.s.PGSQL.5432' }, ...at(HOST).addresses] }
    ],
    // The last of several equal parameters counts, an empty one does not, and + is not a space.
    [`${URL}?user=a&user=b&dbname=c&password=d%26e`, { user: 'b', database: 'c', password: 'd&e' }],
    [`${URL}?application_name=&&user=&password=&`, {}],
    [
      `${URL}?application_name=a+b%20c=d&fallback_application_name=x`,
      { settings: { application_name: 'a+b c=d' } }
    ],
    [`${URL}?connect_timeout=0`, {}],
    [`${URL}?connect_timeout=-1`, {}],
    [
      `${URL}?sslmode=verify-ca&sslrootcert=${CA}&channel_binding=require`,
      { tls: 'required, issuer and host' }
    ]
  ]
  for (const [url, meaning] of cases) t.strictSame(read(url), { ...TASKS, ...meaning }, url)
})

t.test('an invalid URL is refused in one sentence without the password', async (t) => {
  const cases: [url: string, message: RegExp][] = [
    ['postgres://app:s3cret%password@h/d', /^the password has a % that begins no escape/],
    ['postgres://a%pp:s3cretpassword@h/d', /^the user name has a %/],
    ['postgres://app:s3cret%FF@h/d', /^the password has a %/],
    ['postgres://app:s3cret%00@h/d', /^the password has a NUL/],
    ['postgres://app:s3cretpassword@h/%zz', /^the name of the database has a %/],
    ['postgres://app:pass/s3cret@h/d', /must be percent-encoded, such as \//],
    ['postgres://app:12/s3cret@h/d', /must be percent-encoded, such as \//],
    ['postgres://app:12/?s3cret=x@h/d', /must be percent-encoded, such as \//],
    ['postgres://app:s3cretpassword/', /^a host or its port cannot be read/],
    ['postgres://app:s3cretpassword@h:port/d', /^a host or its port cannot be read/],
    [
      'postgres://app:s3cretpassword@::1/d',
      /^a host or its port cannot be read.*IPv6 address is written in brackets/
    ],
    ['postgres://app:s3cretpassword@[::1/d', /^a host or its port cannot be read/],
    ['postgres://app:s3cretpassword@[::1]x/d', /^a host or its port cannot be read/],
    ['postgres://app:s3cretpassword@h:0/d', /^port must be a whole number from 1 to 65535/],
    ['postgres://app:s3cretpassword@h:65536/d', /^port must be/],
    [
      'postgres://app.x:s3cretpassword@aws-0-us-east-1.Pooler.Supabase.com:6543/postgres',
      /^Supabase's shared pooler loses answers in transaction mode, which is port 6543: use port 5432$/
    ],
    [`${URL}?port=x`, /^port must be/],
    [`${URL}?port=1,2`, /^port must be one, or as many as the hosts: 1, not 2$/],
    [
      'postgres://app:s3cretpassword@a:1,b:2,c:3/d?host=a,b',
      /^port must be one, or as many as the hosts: 2, not 3$/
    ],
    [
      `${URL}?keepalive=1`,
      /^keepalive is not a parameter of a PostgreSQL URL.*options=-c%20keepalive%3Dvalue$/
    ],
    [`${URL}?__proto__=1`, /^__proto__ is not a parameter/],
    [`${URL}?constructor=1`, /^constructor is not a parameter/],
    [`${URL}?SSLMODE=require`, /^SSLMODE is not a parameter/],
    [`${URL}?s3cret!`, /^the part after the \?/],
    [`${URL}?sslmode`, /^the part after the \?/],
    [`${URL}?sslmode=`, /^sslmode must be/],
    [`${URL}?sslmode=verify-full&sslmode=`, /^sslmode must be/],
    [`${URL}?password=s3cret%zz`, /^password has a %/],
    [
      `${URL}?sslmode=verify_full`,
      /^sslmode must be disable, allow, prefer, require, verify-ca or verify-full$/
    ],
    [`${URL}?ssl=yes`, /^ssl must be true, false or a value of sslmode$/],
    [`${URL}?connect_timeout=1.5`, /^connect_timeout must be a whole number of seconds/],
    [`${URL}?channel_binding=yes`, /^channel_binding must be/],
    [`${URL}?ssl_min_protocol_version=1.2`, /^ssl_min_protocol_version must be/],
    // Combinations that libpq refuses, or that are weaker than they look.
    [`${URL}?sslmode=verify-ca`, /^sslmode=verify-ca needs sslrootcert/],
    [`${URL}?sslmode=verify-ca&sslrootcert=system`, /^sslrootcert=system needs sslmode=verify-full/],
    [`${URL}?sslmode=require&sslrootcert=system`, /^sslrootcert=system needs sslmode=verify-full/],
    [`${URL}?ssl=true&sslrootcert=system`, /^sslrootcert=system needs sslmode=verify-full/],
    [`${URL}?sslnegotiation=direct`, /^sslnegotiation=direct needs sslmode=require/],
    [`${URL}?sslnegotiation=direct&sslmode=allow`, /^sslnegotiation=direct needs/],
    [`${URL}?channel_binding=require&sslmode=disable`, /^channel_binding=require needs TLS/],
    ['postgres://%2Fvar%2Frun/d?channel_binding=require', /^channel_binding=require needs TLS/],
    // Files. Some people write the key itself.
    [
      `${URL}?sslcert=${CERT}&sslkey=-----BEGIN%20s3cret%0A`,
      /^sslkey must be a file that can be read \(ENOENT\)$/
    ],
    [
      `${URL}?sslmode=verify-full&sslrootcert=/nowhere/ca.crt`,
      /^sslrootcert must be a file that can be read \(ENOENT\)$/
    ],
    [`${URL}?sslrootcert=${files}/garbage.pem`, /^sslrootcert must be a file with certificates in PEM/],
    [`${URL}?sslcert=${CERT}`, /^sslcert and sslkey must be given together/],
    [`${URL}?sslkey=${KEY}`, /^sslcert and sslkey must be given together/],
    [`${URL}?sslcert=${CERT}&sslkey=/nowhere/key`, /^sslkey must be a file that can be read \(ENOENT\)$/],
    [`${URL}?sslcert=${CA}&sslkey=${KEY}`, /^sslcert, sslkey and sslpassword do not fit together: /],
    [
      `${URL}?sslmode=disable&sslcert=${files}/garbage.pem&sslkey=${KEY}`,
      /^sslcert, sslkey and sslpassword do not/
    ]
  ]
  for (const [url, message] of cases) t.match(refusal(url), message, url)
})

t.test('verify-full compares the host with the names in a certificate', async (t) => {
  const tls = parseDatabaseUrl(`${URL}?sslmode=verify-full`).tls
  const isFor = (host: string, certificate: object) =>
    tls?.optionsFor(host).checkServerIdentity?.('', certificate as PeerCertificate) === undefined
  for (const [host, certificate, expected] of [
    ['db.example.com', { subject: {}, subjectaltname: 'DNS:db.example.com' }, true],
    ['db.example.com', { subject: {}, subjectaltname: 'DNS:*.example.com' }, true],
    ['db.example.com', { subject: { CN: 'db.example.com' } }, true],
    ['db.example.com', { subject: { CN: 'db.example.com' }, subjectaltname: 'DNS:localhost' }, false],
    ['10.0.0.1', { subject: {}, subjectaltname: 'IP Address:10.0.0.1' }, true],
    ['10.0.0.1', { subject: {}, subjectaltname: 'IP Address:10.0.0.2' }, false],
    ['10.0.0.1', { subject: {}, subjectaltname: 'DNS:localhost' }, false],
    // A fault of Node 22.23 refuses every IPv6 address.
    [
      '::1',
      { subject: {}, subjectaltname: 'IP Address:0:0:0:0:0:0:0:1' },
      !process.version.startsWith('v22.23.')
    ],
    ['10.0.0.1', { subject: { CN: '10.0.0.1' } }, true],
    ['10.0.0.1', { subject: { CN: '10.0.0.2' } }, false],
    ['10.0.0.1', { subject: { CN: '10.0.0.1' }, subjectaltname: 'DNS:localhost' }, false]
  ] as const) {
    t.equal(isFor(host, certificate), expected, `${host} ${JSON.stringify(certificate)}`)
  }
  t.equal(tls?.optionsFor('10.0.0.1').servername, undefined, 'an address is no server name')
  t.equal(tls?.optionsFor('::1').servername, undefined)
})
