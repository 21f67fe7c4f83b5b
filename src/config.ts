import { createPublicKey } from 'node:crypto'
import { join, resolve } from 'node:path'
import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { StartError } from '../db/errors.js'
import type { DatabaseConfig } from '../db/index.js'
import type { AuthOptions } from '../plugins/auth/options.js'
import type { CorsOrigins } from '../plugins/cors.js'

const port = (fallback: string, listener: string) =>
  Type.String({
    pattern: '^(6553[0-5]|655[0-2]\\d|65[0-4]\\d{2}|6[0-4]\\d{3}|[1-5]\\d{4}|\\d{1,4})$',
    default: fallback,
    description: `port of the ${listener}, a whole number from 0 to 65535 (0 takes a free one)`
  })

const host = (listener: string) =>
  Type.String({
    minLength: 1,
    default: '127.0.0.1',
    description: `address of the ${listener}, an IP address or a host name`
  })

const amount = (pattern: string, fallback: string, range: string) =>
  Type.String({ pattern, default: fallback, description: `a whole number of ${range}` })

const oneOf = <Name extends string>(names: readonly Name[], fallback?: Name) =>
  Type.Union(
    names.map((name) => Type.Literal(name)),
    {
      default: fallback,
      description: names.length > 2 ? `one of ${names.join(', ')}` : names.join(' or ')
    }
  )

const flag = (fallback: 'true' | 'false') => oneOf(['true', 'false'], fallback)

const databaseUrl = () =>
  Type.Optional(
    Type.String({
      pattern: '^postgres(ql)?://.+',
      secret: true,
      description: 'a URL that starts with postgres:// or postgresql://'
    })
  )

const httpUrl = (what: string) =>
  Type.Optional(
    Type.String({ pattern: '^https?://\\S+$', description: `an http:// or https:// URL ${what}` })
  )

/** Signs of a copying mistake at the ends of a value: white space, quotes, invisible characters such as a byte order mark. */
const RAGGED_ENDS = /^[\s\p{Cc}\p{Cf}\p{Pi}\p{Pf}"'`]|[\s\p{Cc}\p{Cf}\p{Pi}\p{Pf}"'`]$/u

/** The environment variables. `description` completes "must be …" in an error; a `secret` value is never shown. */
export const Environment = Type.Object({
  HOST: host('API'),
  PORT: port('3000', 'API'),
  OPS_HOST: host('operations listener'),
  OPS_PORT: port('3001', 'operations listener'),
  DATABASE_URL: databaseUrl(),
  MIGRATION_DATABASE_URL: databaseUrl(),
  // At least two: a long list occupies one.
  DATABASE_POOL_MAX: amount('^([2-9]|[1-9]\\d|[1-9]\\d\\d|1000)$', '10', 'connections from 2 to 1000'),
  SHARED_TRANSACTIONS: flag('true'),
  DATA_DIR: Type.String({ minLength: 1, default: '.data', description: 'the path of a folder' }),
  JWT_SECRET: Type.Optional(
    Type.String({
      secret: true,
      description: 'a random text of at least 32 bytes, not a key in PEM, DER or JWK form'
    })
  ),
  JWKS_URL: httpUrl('without credentials'),
  JWT_ISSUER: Type.Optional(Type.String({ minLength: 1, description: 'the exact `iss` of the tokens' })),
  JWT_AUDIENCE: Type.Optional(Type.String({ minLength: 1, description: 'the exact `aud` of the tokens' })),
  CORS_ORIGIN: Type.Optional(
    Type.String({
      description:
        'a comma-separated list of origins such as https://app.example.com or capacitor://localhost, without a path and without *, or only *'
    })
  ),
  LOG_LEVEL: oneOf(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], 'info'),
  LOG_REQUESTS: flag('false'),
  OTEL_TRACES_EXPORTER: Type.Optional(oneOf(['otlp', 'none'])),
  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl('of an OTLP collector'),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: httpUrl('of an OTLP collector'),
  OTEL_EXPORTER_OTLP_PROTOCOL: oneOf(['http/protobuf'], 'http/protobuf'),
  OTEL_SDK_DISABLED: flag('false'),
  OTEL_SERVICE_NAME: Type.String({ default: 'tasks-api', description: 'the name of the service in traces' }),
  OTEL_TRACES_SAMPLER: oneOf(
    [
      'always_on',
      'always_off',
      'traceidratio',
      'parentbased_always_on',
      'parentbased_always_off',
      'parentbased_traceidratio'
    ],
    'parentbased_always_on'
  ),
  OTEL_TRACES_SAMPLER_ARG: Type.String({
    pattern: '^(0(\\.\\d+)?|1(\\.0+)?)$',
    default: '1',
    description: 'a number from 0 to 1, the share of requests to sample'
  }),
  GRACE_SECONDS: amount('^([1-9]|[1-9]\\d|[1-5]\\d{2}|600)$', '10', 'seconds from 1 to 600'),
  // The default exceeds the 600 seconds of Google Cloud's load balancers, the longest of the common proxies.
  KEEP_ALIVE_SECONDS: amount('^[1-9]\\d{0,3}$', '620', 'seconds from 1 to 9999'),
  NODE_ENV: Type.Optional(Type.String({ description: 'production, or anything else' }))
})

export interface AuthConfig extends Omit<AuthOptions, 'keys'> {
  // In development the service makes a secret of its own.
  keys: AuthOptions['keys'] | { kind: 'development'; file: string }
}

export type Config = ReturnType<typeof loadConfig>

/** HS256 requires a key at least as long as its hash: RFC 7518, section 3.2. */
const MIN_SECRET_BYTES = 32

const LOCAL_ORIGIN = /^http:\/\/(localhost|127\.0\.0\.1)(:\d{1,5})?$/

/**
 * Reads the configuration from environment variables. An empty value counts as unset, as it does in a shell.
 *
 * @throws StartError that names the variable and describes a valid value, without showing a secret
 */
export function loadConfig(env: Record<string, string | undefined>) {
  const values = parse(env)
  const production = isProduction(values)
  return Object.freeze({
    production,
    api: { host: values.HOST, port: Number(values.PORT) },
    ops: { host: values.OPS_HOST, port: Number(values.OPS_PORT) },
    database: databaseConfig(values, production),
    auth: { keys: keySource(values, production), issuer: values.JWT_ISSUER, audience: values.JWT_AUDIENCE },
    corsOrigins: corsOrigins(values.CORS_ORIGIN, production),
    logLevel: values.LOG_LEVEL,
    /** True logs a line for each request at info. */
    logRequests: logRequests(values),
    ...(isTracing(values) && { tracing: { serviceName: values.OTEL_SERVICE_NAME } }),
    /** Time that requests in flight have to finish after the signal to stop, in milliseconds. */
    graceMs: Number(values.GRACE_SECONDS) * 1_000,
    /** Time after which an idle connection is closed, in milliseconds. */
    keepAliveMs: Number(values.KEEP_ALIVE_SECONDS) * 1_000
  })
}

/**
 * Reads the settings of the database, for commands like `db:migrate`. They need no source of keys, so a job that migrates
 * needs no secret for tokens.
 *
 * @throws StartError as `loadConfig`
 */
export function loadDatabaseConfig(env: Record<string, string | undefined>): DatabaseConfig {
  const values = parse(env)
  return databaseConfig(values, isProduction(values))
}

type Values = Static<typeof Environment>

const isProduction = ({ NODE_ENV }: Values) => NODE_ENV === 'production'

function parse(env: Record<string, string | undefined>): Values {
  const values: Record<string, string> = {}
  for (const [name, schema] of Object.entries<TSchema>(Environment.properties)) {
    const value = env[name] || (schema.default as string | undefined)
    if (value === undefined) continue
    // The message leaves out the value: it may be a secret that was copied into the wrong variable.
    if (RAGGED_ENDS.test(value)) {
      throw new StartError(`${name} must be ${schema.description}, without white space or quotes at its ends`)
    }
    if (!Value.Check(schema, value)) throw invalidValue(name, schema, value)
    values[name] = value
  }
  return values as Values
}

function invalidValue(name: string, schema: TSchema, value?: string): StartError {
  const shown = schema.secret || value === undefined ? '' : `, not ${JSON.stringify(value)}`
  return new StartError(`${name} must be ${schema.description}${shown}`)
}

/** OpenTelemetry's default sends traces to a collector on this machine. Here tracing must be switched on. */
function isTracing(values: Values): boolean {
  if (values.OTEL_SDK_DISABLED === 'true' || values.OTEL_TRACES_EXPORTER === 'none') return false
  return (
    values.OTEL_TRACES_EXPORTER === 'otlp' ||
    values.OTEL_EXPORTER_OTLP_ENDPOINT !== undefined ||
    values.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT !== undefined
  )
}

function logRequests({ LOG_REQUESTS, LOG_LEVEL }: Values): boolean {
  if (LOG_REQUESTS === 'true' && !['info', 'debug', 'trace'].includes(LOG_LEVEL)) {
    throw new StartError(`LOG_REQUESTS needs LOG_LEVEL to be info, debug or trace, not ${LOG_LEVEL}`)
  }
  return LOG_REQUESTS === 'true'
}

function databaseConfig(values: Values, production: boolean): DatabaseConfig {
  const { DATABASE_URL, MIGRATION_DATABASE_URL, DATA_DIR } = values
  if (DATABASE_URL) {
    return {
      kind: 'postgres',
      url: DATABASE_URL,
      poolMax: Number(values.DATABASE_POOL_MAX),
      sharedTransactions: values.SHARED_TRANSACTIONS === 'true',
      ...(MIGRATION_DATABASE_URL && { migrationUrl: MIGRATION_DATABASE_URL })
    }
  }
  if (MIGRATION_DATABASE_URL) {
    throw new StartError(
      'DATABASE_URL must be set when MIGRATION_DATABASE_URL is: both name the same database'
    )
  }
  if (production) {
    throw new StartError(
      'DATABASE_URL must be set in production: the embedded database is for development and evaluation'
    )
  }
  return { kind: 'embedded', directory: resolve(DATA_DIR, 'postgres') }
}

function keySource({ JWT_SECRET, JWKS_URL, DATA_DIR }: Values, production: boolean): AuthConfig['keys'] {
  if (JWT_SECRET && JWKS_URL) {
    throw new StartError(
      'JWT_SECRET and JWKS_URL are both set: set one, tokens have exactly one source of keys'
    )
  }
  if (JWT_SECRET) {
    if (Buffer.byteLength(JWT_SECRET) < MIN_SECRET_BYTES || isKey(JWT_SECRET)) {
      throw invalidValue('JWT_SECRET', Environment.properties.JWT_SECRET)
    }
    return { kind: 'secret', secret: JWT_SECRET }
  }
  if (JWKS_URL) {
    // fetch refuses credentials in a URL, and every message that shows the URL would show them.
    if (!URL.canParse(JWKS_URL) || new URL(JWKS_URL).username || new URL(JWKS_URL).password) {
      throw invalidValue('JWKS_URL', Environment.properties.JWKS_URL)
    }
    return { kind: 'jwks', url: JWKS_URL }
  }
  if (production) throw new StartError('JWT_SECRET or JWKS_URL must be set in production')
  return { kind: 'development', file: join(resolve(DATA_DIR), 'jwt-secret') }
}

/**
 * True for a public key. Used as an HMAC secret, it would let anyone who has it sign tokens (algorithm confusion,
 * RFC 8725, section 2.1).
 */
function isKey(secret: string): boolean {
  if (/-----BEGIN [A-Z0-9 ]+-----/.test(secret)) return true
  if (/"kty"\s*:/.test(secret)) return true
  const der = Buffer.from(secret.replace(/\s/g, ''), 'base64')
  for (const type of ['spki', 'pkcs1'] as const) {
    try {
      createPublicKey({ key: der, format: 'der', type })
      return true
    } catch {
      // The value is no key of this type.
    }
  }
  return false
}

function corsOrigins(value: string | undefined, production: boolean): CorsOrigins {
  if (value === undefined) return production ? false : [LOCAL_ORIGIN]
  const origins = value.split(',').map((origin) => origin.trim())
  if (origins.length === 1 && origins[0] === '*') return '*'
  if (!origins.every(isOrigin)) throw invalidValue('CORS_ORIGIN', Environment.properties.CORS_ORIGIN, value)
  return origins
}

/** The host is a name, an IPv4 or an IPv6 address. A placeholder such as `*` is refused. */
const WEB_ORIGIN = /^https?:\/\/([a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:]+\])(:\d+)?$/
/** Apps and browser extensions have schemes of their own. */
const APP_ORIGIN = /^([a-z][a-z0-9+.-]*):\/\/[a-zA-Z0-9._-]+(:\d+)?$/
/** APP_ORIGIN must not accept these. http and https have the rule above; pages of the others send "null" or no origin. */
const NEVER_AN_ORIGIN = ['http', 'https', 'ws', 'wss', 'ftp', 'file', 'data', 'blob', 'about', 'javascript']

/**
 * True when a browser can send this text as `Origin`. An origin has no path, so not even a final slash, and it has no
 * port if that is the scheme's default.
 */
function isOrigin(text: string): boolean {
  if (WEB_ORIGIN.test(text)) return URL.canParse(text) && new URL(text).origin === text
  const scheme = APP_ORIGIN.exec(text)?.[1]
  return scheme !== undefined && !NEVER_AN_ORIGIN.includes(scheme)
}
