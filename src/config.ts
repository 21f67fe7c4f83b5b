import { createPublicKey } from 'node:crypto'
import { resolve } from 'node:path'
import { type Static, type StringOptions, type TSchema, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { StartError } from '../db/errors.js'
import type { DatabaseConfig } from '../db/index.js'
import type { AuthOptions } from '../plugins/auth/options.js'
import type { CorsOrigins } from '../plugins/cors.js'

const optional = (description: string, options?: StringOptions) =>
  Type.Optional(Type.String({ ...options, description }))

const host = () => Type.String({ default: '127.0.0.1', description: 'an IP address or a host name' })

const wholeNumber = (minimum: number, maximum: number, fallback: number, ofUnit = '') =>
  Type.Integer({
    minimum,
    maximum,
    default: fallback,
    description: `a whole number${ofUnit} from ${minimum} to ${maximum}`
  })

const flag = (fallback: boolean) => Type.Boolean({ default: fallback, description: 'true or false' })

const oneOf = <Name extends string>(names: readonly Name[], fallback?: Name) =>
  Type.Union(
    names.map((name) => Type.Literal(name)),
    {
      default: fallback,
      description: names.length > 2 ? `one of ${names.join(', ')}` : names.join(' or ')
    }
  )

const databaseUrl = () =>
  optional('a URL that starts with postgres:// or postgresql://', {
    pattern: '^postgres(ql)?://.+',
    secret: true
  })

const httpUrl = (what: string) =>
  optional(`an http:// or https:// URL ${what}`, { pattern: '^https?://\\S+$' })

/** Signs of a copying mistake at the ends of a value: white space, quotes, invisible characters such as a byte order mark. */
const RAGGED_ENDS = /^[\s\p{Cc}\p{Cf}\p{Pi}\p{Pf}"'`]|[\s\p{Cc}\p{Cf}\p{Pi}\p{Pf}"'`]$/u

/** The environment variables. `description` completes "must be …" in an error; a `secret` value is never shown. */
export const Environment = Type.Object({
  HOST: host(),
  PORT: wholeNumber(0, 65_535, 3000),
  OPS_HOST: host(),
  OPS_PORT: wholeNumber(0, 65_535, 3001),
  DATABASE_URL: databaseUrl(),
  MIGRATION_DATABASE_URL: databaseUrl(),
  // At least two: a long list occupies one.
  DATABASE_POOL_MAX: wholeNumber(2, 1000, 10, ' of connections'),
  SHARED_TRANSACTIONS: flag(true),
  DATA_DIR: Type.String({ default: '.data', description: 'the path of a folder' }),
  JWT_SECRET: optional('a random text of at least 32 bytes, not a key in PEM, DER or JWK form', {
    secret: true
  }),
  JWKS_URL: httpUrl('without credentials'),
  JWT_ISSUER: optional('the exact `iss` of the tokens'),
  JWT_AUDIENCE: optional('the exact `aud` of the tokens'),
  CORS_ORIGIN: optional(
    'a comma-separated list of origins such as https://app.example.com or capacitor://localhost, without a path and without *, or only *'
  ),
  LOG_LEVEL: oneOf(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], 'info'),
  LOG_REQUESTS: flag(false),
  OTEL_TRACES_EXPORTER: Type.Optional(oneOf(['otlp', 'none'])),
  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl('of an OTLP collector'),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: httpUrl('of an OTLP collector'),
  OTEL_EXPORTER_OTLP_PROTOCOL: oneOf(['http/protobuf'], 'http/protobuf'),
  OTEL_SDK_DISABLED: flag(false),
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
  GRACE_SECONDS: wholeNumber(1, 600, 10, ' of seconds'),
  // The default exceeds the 600 seconds of Google Cloud's load balancers, the longest of the common proxies.
  KEEP_ALIVE_SECONDS: wholeNumber(1, 9999, 620, ' of seconds'),
  NODE_ENV: optional('production, or anything else')
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
  return Object.freeze({
    production: isProduction(values),
    api: { host: values.HOST, port: values.PORT },
    ops: { host: values.OPS_HOST, port: values.OPS_PORT },
    database: databaseConfig(values),
    auth: { keys: keySource(values), issuer: values.JWT_ISSUER, audience: values.JWT_AUDIENCE },
    corsOrigins: corsOrigins(values),
    logLevel: values.LOG_LEVEL,
    /** True logs a line for each request at info. */
    logRequests: logRequests(values),
    ...(isTracing(values) && {
      tracing: { serviceName: values.OTEL_SERVICE_NAME, sampling: sampling(values) }
    }),
    /** Time that requests in flight have to finish after the signal to stop, in milliseconds. */
    graceMs: values.GRACE_SECONDS * 1_000,
    /** Time after which an idle connection is closed, in milliseconds. */
    keepAliveMs: values.KEEP_ALIVE_SECONDS * 1_000
  })
}

/**
 * Reads the settings of the database, for commands like `db:migrate`. They need no source of keys, so a job that migrates
 * needs no secret for tokens.
 *
 * @throws StartError as `loadConfig`
 */
export function loadDatabaseConfig(env: Record<string, string | undefined>): DatabaseConfig {
  return databaseConfig(parse(env))
}

type Values = Static<typeof Environment>

const isProduction = ({ NODE_ENV }: Values) => NODE_ENV === 'production'

function parse(env: Record<string, string | undefined>): Values {
  const values: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries<TSchema>(Environment.properties)) {
    const text = env[name]
    // The message leaves out the value: it may be a secret that was copied into the wrong variable.
    if (text && RAGGED_ENDS.test(text)) {
      throw new StartError(`${name} must be ${schema.description}, without white space or quotes at its ends`)
    }
    const value = text ? read(schema, text) : schema.default
    if (value === undefined) continue
    if (!Value.Check(schema, value)) throw invalidValue(name, text)
    values[name] = value
  }
  return values as Values
}

/** A number or a flag has only one spelling. Any other text is returned unchanged, and then refused. */
function read({ type }: TSchema, text: string): unknown {
  if (type === 'integer' && /^(0|[1-9]\d*)$/.test(text)) return Number(text)
  if (type === 'boolean' && /^(true|false)$/.test(text)) return text === 'true'
  return text
}

/** @param text shown in the message, unless the variable is a secret */
function invalidValue(name: string, text?: string): StartError {
  const { description, secret } = Environment.properties[name as keyof Values] as TSchema
  const shown = secret || text === undefined ? '' : `, not ${JSON.stringify(text)}`
  return new StartError(`${name} must be ${description}${shown}`)
}

/** OpenTelemetry's default sends traces to a collector on this machine. Here tracing must be switched on. */
function isTracing(values: Values): boolean {
  if (values.OTEL_SDK_DISABLED || values.OTEL_TRACES_EXPORTER === 'none') return false
  return (
    values.OTEL_TRACES_EXPORTER === 'otlp' ||
    values.OTEL_EXPORTER_OTLP_ENDPOINT !== undefined ||
    values.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT !== undefined
  )
}

function sampling({ OTEL_TRACES_SAMPLER: sampler, OTEL_TRACES_SAMPLER_ARG: ratio }: Values) {
  const share = sampler.endsWith('always_on') ? 1 : sampler.endsWith('always_off') ? 0 : Number(ratio)
  return { share, parentBased: sampler.startsWith('parentbased_') }
}

function logRequests({ LOG_REQUESTS, LOG_LEVEL }: Values): boolean {
  if (LOG_REQUESTS && !['info', 'debug', 'trace'].includes(LOG_LEVEL)) {
    throw new StartError(`LOG_REQUESTS needs LOG_LEVEL to be info, debug or trace, not ${LOG_LEVEL}`)
  }
  return LOG_REQUESTS
}

function databaseConfig(values: Values): DatabaseConfig {
  const { DATABASE_URL, MIGRATION_DATABASE_URL, DATA_DIR } = values
  if (DATABASE_URL) {
    return {
      kind: 'postgres',
      url: DATABASE_URL,
      poolMax: values.DATABASE_POOL_MAX,
      sharedTransactions: values.SHARED_TRANSACTIONS,
      ...(MIGRATION_DATABASE_URL && { migrationUrl: MIGRATION_DATABASE_URL })
    }
  }
  if (MIGRATION_DATABASE_URL) {
    throw new StartError(
      'DATABASE_URL must be set when MIGRATION_DATABASE_URL is: both name the same database'
    )
  }
  if (isProduction(values)) {
    throw new StartError(
      'DATABASE_URL must be set in production: the embedded database is for development and evaluation'
    )
  }
  return { kind: 'embedded', directory: resolve(DATA_DIR, 'postgres') }
}

function keySource(values: Values): AuthConfig['keys'] {
  const { JWT_SECRET, JWKS_URL, DATA_DIR } = values
  if (JWT_SECRET && JWKS_URL) {
    throw new StartError(
      'JWT_SECRET and JWKS_URL are both set: set one, tokens have exactly one source of keys'
    )
  }
  if (JWT_SECRET) {
    if (Buffer.byteLength(JWT_SECRET) < MIN_SECRET_BYTES || isKey(JWT_SECRET)) {
      throw invalidValue('JWT_SECRET')
    }
    return { kind: 'secret', secret: JWT_SECRET }
  }
  if (JWKS_URL) {
    // fetch refuses credentials in a URL, and every message that shows the URL would show them.
    if (!URL.canParse(JWKS_URL) || new URL(JWKS_URL).username || new URL(JWKS_URL).password) {
      throw invalidValue('JWKS_URL')
    }
    return { kind: 'jwks', url: JWKS_URL }
  }
  if (isProduction(values)) throw new StartError('JWT_SECRET or JWKS_URL must be set in production')
  return { kind: 'development', file: resolve(DATA_DIR, 'jwt-secret') }
}

/**
 * True for a public key. Used as an HMAC secret, it would let anyone who has it sign tokens (algorithm confusion,
 * RFC 8725, section 2.1).
 */
function isKey(secret: string): boolean {
  if (/-----BEGIN [A-Z0-9 ]+-----|"kty"\s*:/.test(secret)) return true
  const key = Buffer.from(secret.replace(/\s/g, ''), 'base64')
  return (['spki', 'pkcs1'] as const).some((type) => {
    try {
      return createPublicKey({ key, format: 'der', type }) !== undefined
    } catch {
      return false
    }
  })
}

function corsOrigins(values: Values): CorsOrigins {
  const { CORS_ORIGIN } = values
  if (CORS_ORIGIN === undefined) return isProduction(values) ? false : [LOCAL_ORIGIN]
  const origins = CORS_ORIGIN.split(',').map((origin) => origin.trim())
  if (origins.length === 1 && origins[0] === '*') return '*'
  if (!origins.every(isOrigin)) throw invalidValue('CORS_ORIGIN', CORS_ORIGIN)
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
