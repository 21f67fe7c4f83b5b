import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { userInfo } from 'node:os'
import {
  type ConnectionOptions,
  checkServerIdentity,
  createSecureContext,
  type PeerCertificate,
  type SecureVersion
} from 'node:tls'

/** A TCP address, or the full path of a Unix socket. */
export type DatabaseAddress = { host: string; port: number } | { path: string }

export interface TlsTarget {
  /** When false, plain text is used with a server that has no TLS. */
  required: boolean
  /** True starts TLS with the first byte, without PostgreSQL's own negotiation. */
  direct: boolean
  /** @param host the name or IP address in the URL: the server's certificate is checked against it */
  optionsFor(host: string): ConnectionOptions
}

export interface PostgresTarget {
  /** At least one, in the order of the URL. */
  addresses: DatabaseAddress[]
  user: string
  /** Empty if the URL has none. */
  password: string
  database: string
  /** For TCP addresses; undefined means plain text. Unix sockets never use TLS. */
  tls: TlsTarget | undefined
  /** Timeout of one attempt at one address; undefined if the URL has none. */
  connectTimeoutMs: number | undefined
  /** Start-up parameters for the server. */
  settings: Record<string, string>
}

type Values = Record<string, string | undefined>
type Rule = [right: RegExp, otherwise: string]

const anything: Rule = [/^/, '']
const refused = (otherwise: string): Rule => [/(?!)/, otherwise]
const each = (names: string, rule: Rule): Record<string, Rule> =>
  Object.fromEntries(names.split(' ').map((name) => [name, rule]))

/**
 * Every parameter of a URL: the accepted values, and the message for any other. Parameters that are not used below are
 * ignored, which is safe for the accepted values.
 *
 * https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
 */
const PARAMETERS: Record<string, Rule> = {
  ...each('host user password dbname options application_name fallback_application_name', anything),
  port: [/^(\d+(,|$)|,)*$/, 'must be a whole number from 1 to 65535, or a list of them'],
  connect_timeout: [/^-?\d{1,6}$/, 'must be a whole number of seconds, at most 999999'],
  sslmode: [
    /^(disable|allow|prefer|require|verify-ca|verify-full|no-verify)$/,
    'must be disable, allow, prefer, require, verify-ca or verify-full'
  ],
  ssl: [
    /^(true|1|false|0|disable|allow|prefer|require|verify-ca|verify-full|no-verify)$/,
    'must be true, false or a value of sslmode'
  ],
  ...each('sslrootcert sslcert sslkey sslpassword', anything),
  ...each('ssl_min_protocol_version ssl_max_protocol_version', [
    /^TLSv1(\.[123])?$/,
    'must be TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3'
  ]),
  sslnegotiation: [/^(postgres|direct)$/, 'must be postgres or direct'],
  channel_binding: [/^(disable|prefer|require)$/, 'must be disable, prefer or require'],

  // The service always uses the primary: it closes a connection to a read-only server.
  target_session_attrs: [
    /^(any|read-write|primary)$/,
    'must be read-write, primary or any, because the service writes'
  ],
  client_encoding: [/^(utf-?8|unicode|auto)$/i, 'must be UTF8, because the service stores any Unicode text'],
  // Every statement has a deadline, so dead connections are detected without TCP's timeouts.
  ...each('keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout', anything),
  // Any order of the hosts is a valid random order, also that of the URL.
  load_balance_hosts: [/^(disable|random)$/, 'must be disable or random'],
  replication: [/^(false|off|no|0)$/i, 'is not supported, because the service does not replicate'],
  gssencmode: [/^(disable|prefer)$/, 'must be disable or prefer, because the driver has no GSSAPI'],
  ...each('gssdelegation krbsrvname gsslib', anything),
  // libpq ignores it too.
  sslcompression: anything,
  sslcertmode: [/^allow$/, 'must be allow, which is the default'],
  sslsni: [/^1$/, 'must be 1, because the driver always names the host to the server'],
  min_protocol_version: [/^3\.0$/, 'must be 3.0, which is the version that the driver speaks'],
  max_protocol_version: [/^(3\.[02]|latest)$/, 'must be 3.0, 3.2 or latest'],

  hostaddr: refused('is not supported: write the address as the host'),
  passfile: refused('is not supported: write the password into the URL'),
  service: refused('is not supported: write what it stands for into the URL'),
  servicefile: refused('is not supported: write what it holds into the URL'),
  require_auth: refused('is not supported: the driver cannot limit how the server asks for the password'),
  requirepeer: refused('is not supported: Node cannot tell who runs the server behind a Unix socket'),
  ...each(
    'scram_client_key scram_server_key oauth_issuer oauth_client_id oauth_client_secret oauth_scope',
    refused('is not supported: the driver logs in with the password')
  ),
  ...each('sslcrl sslcrldir', refused('is not supported: revocation lists are not checked')),
  sslkeylogfile: refused('is not supported: start Node with --tls-keylog instead'),

  // Prisma's: https://www.prisma.io/docs/orm/overview/databases/postgresql#arguments
  schema: [
    /^public$/,
    'must be public, or be left out: another one is set by options=-c%20search_path%3Dname'
  ],
  ...each('pgbouncer connection_limit pool_timeout socket_timeout statement_cache_size', anything),
  ...each('single_use_connections max_connection_lifetime max_idle_connection_lifetime', anything),
  sslaccept: [/^accept_invalid_certs$/, 'is not supported: sslmode=verify-full checks the certificate'],
  sslidentity: refused('is not supported: sslcert and sslkey name the same as PEM files'),
  // In node-postgres this gives sslmode libpq's meaning, which it always has here.
  uselibpqcompat: anything,
  // Supabase and Vercel add these to recognise their own URLs.
  ...each('supa workaround', anything)
}

const DEFAULT_PORT = '5432'

const ENCODING =
  'in a user name or password characters that mean something in a URL must be percent-encoded, such as / (%2F), ? (%3F) and @ (%40)'

/**
 * Parses a connection URL like libpq, PostgreSQL's own client library, with the same parameters and defaults. It reads no
 * environment variables, and only files that the URL names.
 *
 * https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
 *
 * @throws Error whose message is one sentence with the parameter, and never shows a password
 */
export function parseDatabaseUrl(url: string): PostgresTarget {
  const { credentials, hosts, database, query } = partsOf(url)
  const parameters = parametersOf(query)
  const user = parameters.user ?? credentials.user ?? osUser()
  const addresses = addressesOf(hosts, parameters)
  const { application_name, fallback_application_name, options, connect_timeout } = parameters
  const applicationName = application_name ?? fallback_application_name
  const timeout = Number(connect_timeout ?? 0)

  return {
    addresses,
    user,
    password: parameters.password ?? credentials.password ?? '',
    database: parameters.dbname ?? database ?? user,
    tls: tlsOf(parameters, addresses),
    connectTimeoutMs: timeout > 0 ? timeout * 1_000 : undefined,
    settings: {
      ...(applicationName !== undefined && { application_name: applicationName }),
      ...(options !== undefined && { options })
    }
  }
}

/**
 * Splits postgresql://user:password@host:port,host:port/database?parameter=value. `URL` is not used: it allows only one
 * host, and reads + as a space.
 */
function partsOf(url: string) {
  const rest = url.replace(/^postgres(ql)?:\/\//, '')
  const [authority = ''] = rest.split('/', 1)
  // A password may contain an @ that is not encoded. A host cannot.
  const at = authority.lastIndexOf('@')
  const [, hosts = '', path, query = ''] =
    /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(rest.slice(at + 1)) ?? []
  // The password contains a slash. Its end would be parsed as a database or a parameter, and be shown in a message.
  if (at === -1 && `${path}${query}`.includes('@')) throw new Error(ENCODING)
  const [user, ...password] = at === -1 ? [] : authority.slice(0, at).split(':')
  return {
    credentials: {
      user: decode('the user name', user),
      password: decode('the password', password.length > 0 ? password.join(':') : undefined)
    },
    hosts,
    database: decode('the name of the database', path),
    query
  }
}

/** Percent-decodes a text. Returns undefined if it is empty. */
function decode(what: string, text: string | undefined): string | undefined {
  let decoded: string | undefined
  try {
    decoded = text && decodeURIComponent(text)
  } catch {
    throw new Error(`${what} has a % that begins no escape of UTF-8; a % itself is written %25`)
  }
  if (decoded?.includes('\0')) throw new Error(`${what} has a NUL character`)
  return decoded || undefined
}

/** As in libpq, the last of several equal names counts, and an empty value counts as none. */
function parametersOf(query: string): Values {
  const parameters: Values = {}
  for (const pair of query.split('&')) {
    if (pair === '') continue
    const [key, ...value] = pair.split('=')
    const name = decode('the name of a parameter', key) ?? ''
    if (value.length === 0 || !/^[a-z_]+$/i.test(name)) {
      throw new Error('the part after the ? is not made of parameter=value')
    }
    if (!Object.hasOwn(PARAMETERS, name)) {
      throw new Error(
        `${name} is not a parameter of a PostgreSQL URL; a setting of the server is written as options=-c%20${name}%3Dvalue`
      )
    }
    const [right, otherwise] = PARAMETERS[name] as Rule
    const text = decode(name, value.join('='))
    if (!right.test(text ?? '')) throw new Error(`${name} ${otherwise}`)
    parameters[name] = text
  }
  return parameters
}

function osUser(): string {
  try {
    return userInfo().username
  } catch {
    throw new Error('the user name is missing, and the user of this process has no name to use instead')
  }
}

function addressesOf(authority: string, parameters: Values): DatabaseAddress[] {
  const fromAuthority = authority.split(',').map((address) => {
    const [, ipv6, name, port = ''] = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d*))?$/.exec(address) ?? []
    if (ipv6 === undefined && name === undefined) {
      throw new Error(
        `a host or its port cannot be read: an IPv6 address is written in brackets, and ${ENCODING}`
      )
    }
    return { host: decode('the host', ipv6 ?? name) ?? '', port }
  })
  const hosts = parameters.host?.split(',') ?? fromAuthority.map(({ host }) => host)
  const ports = parameters.port?.split(',') ?? fromAuthority.map(({ port }) => port)
  if (ports.length > 1 && ports.length !== hosts.length) {
    throw new Error(`port must be one, or as many as the hosts: ${hosts.length}, not ${ports.length}`)
  }
  return hosts.map((host, index) => {
    const port = Number((ports.length === 1 ? ports[0] : ports[index]) || DEFAULT_PORT)
    if (port < 1 || port > 65_535) throw new Error('port must be a whole number from 1 to 65535')
    // https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-HOST
    if (host.startsWith('/')) return { path: `${host}/.s.PGSQL.${port}` }
    // Supavisor: https://github.com/supabase/supavisor/issues/1061
    if (port === 6543 && /\.pooler\.supabase\.com$/i.test(host)) {
      throw new Error(
        "Supabase's shared pooler loses answers in transaction mode, which is port 6543: use port 5432"
      )
    }
    return { host: host || 'localhost', port }
  })
}

/** The check of the server's certificate: none, its issuer, or its issuer and its host. */
type Check = 'none' | 'issuer' | 'host'

function tlsOf(parameters: Values, addresses: DatabaseAddress[]): TlsTarget | undefined {
  const { ssl, sslrootcert, channel_binding } = parameters
  const direct = parameters.sslnegotiation === 'direct'
  const isBound = channel_binding === 'require'
  const mode = parameters.sslmode ?? sslModeOf(ssl) ?? (sslrootcert === 'system' ? 'verify-full' : 'prefer')
  const isWeak = /^(disable|allow|prefer)$/.test(mode)

  if (sslrootcert === 'system' && mode !== 'verify-full') {
    throw new Error(
      `sslrootcert=system needs sslmode=verify-full, not ${mode}: anybody can get a certificate`
    )
  }
  if (mode === 'verify-ca' && sslrootcert === undefined) {
    throw new Error(
      'sslmode=verify-ca needs sslrootcert, the file with the certificate to trust; or use verify-full'
    )
  }
  if (direct && isWeak) {
    throw new Error(`sslnegotiation=direct needs sslmode=require, verify-ca or verify-full, not ${mode}`)
  }
  if (isBound && (mode === 'disable' || addresses.some((address) => 'path' in address))) {
    throw new Error('channel_binding=require needs TLS, which sslmode=disable and Unix sockets do without')
  }
  const secureContext = secureContextOf(parameters)
  if (mode === 'disable' || addresses.every((address) => 'path' in address)) return undefined

  let check: Check = 'none'
  // The driver has no channel binding. Checking the certificate also prevents a man in the middle.
  if (mode === 'verify-full' || isBound) check = 'host'
  // libpq's require checks the issuer as soon as it has a certificate to trust.
  else if (mode === 'verify-ca' || (mode === 'require' && sslrootcert !== undefined)) check = 'issuer'

  return {
    required: !isWeak || isBound,
    direct,
    optionsFor: (host) => ({
      secureContext,
      // A server name is never an IP address: RFC 6066, section 3.
      ...(isIP(host) === 0 && { servername: host }),
      ...(direct && { ALPNProtocols: ['postgresql'] }),
      rejectUnauthorized: check !== 'none',
      checkServerIdentity: (_, certificate) =>
        check === 'host' ? identityError(host, certificate) : undefined
    })
  }
}

/** Translates the `ssl` of JDBC, node-postgres and postgres.js into an `sslmode`. libpq reads `ssl=true` in the same way. */
const sslModeOf = (ssl: string | undefined) =>
  ssl?.replace(/^(true|1)$/, 'require').replace(/^(false|0)$/, 'disable')

function identityError(host: string, certificate: PeerCertificate): Error | undefined {
  // Unlike Node, libpq also accepts an IP address as the common name, if the certificate has no alternative names.
  if (certificate.subjectaltname === undefined && certificate.subject.CN === host) return undefined
  return checkServerIdentity(host, certificate)
}

function secureContextOf(parameters: Values) {
  const { sslrootcert, sslcert, sslkey, sslpassword } = parameters
  if ((sslcert === undefined) !== (sslkey === undefined)) {
    throw new Error(
      'sslcert and sslkey must be given together: the certificate of this client and its key; the one to trust is sslrootcert'
    )
  }
  const ca = sslrootcert === 'system' ? undefined : read('sslrootcert', sslrootcert)
  try {
    // Node accepts any text, and then trusts no certificate.
    if (ca !== undefined) new X509Certificate(ca)
  } catch {
    throw new Error(`sslrootcert must be a file with certificates in PEM, and ${sslrootcert} is not`)
  }
  const client = { cert: read('sslcert', sslcert), key: read('sslkey', sslkey), passphrase: sslpassword }
  try {
    return createSecureContext({
      ca,
      ...client,
      minVersion: parameters.ssl_min_protocol_version as SecureVersion | undefined,
      maxVersion: parameters.ssl_max_protocol_version as SecureVersion | undefined
    })
  } catch (error) {
    throw new Error(`sslcert, sslkey and sslpassword do not fit together: ${(error as Error).message}`)
  }
}

function read(parameter: string, file: string | undefined): string | undefined {
  try {
    return file === undefined ? undefined : readFileSync(file, 'utf8')
  } catch (error) {
    // The message leaves out the path, because some people put the key itself there.
    throw new Error(`${parameter} must be a file that can be read (${(error as { code?: string }).code})`)
  }
}
