import { generateKeyPairSync } from 'node:crypto'
import { join, resolve } from 'node:path'
import { StartError } from '../../db/errors.js'
import { Environment, loadConfig, loadDatabaseConfig } from '../../src/config.js'
import t, { type Test } from '../support/tap.js'

const SECRET = 's3cr3t-'.repeat(5)
const POSTGRES = 'postgres://app:pa55word@db.example:5432/tasks'
const OWNER = 'postgres://owner:pa55word@db.example:5432/tasks'
const PRODUCTION = { NODE_ENV: 'production', DATABASE_URL: POSTGRES, JWT_SECRET: SECRET }

type Env = Record<string, string | undefined>

/** The message of a refused configuration. */
function refusal(t: Test, env: Env): string {
  try {
    loadConfig(env)
  } catch (error) {
    t.ok(error instanceof StartError, 'refused as the operator can mend it')
    return (error as Error).message
  }
  t.fail(`accepted: ${JSON.stringify(env).slice(0, 100)}`)
  return ''
}

/** Checks for one line that begins with the variable, describes a valid value, and has no secret. */
function refuses(t: Test, env: Env, variable: string, right: RegExp) {
  const message = refusal(t, env)
  t.match(message, new RegExp(`^${variable}\\b`))
  t.match(message, right)
  t.notMatch(message, /[\r\n]/, 'one line')
  for (const secret of [env.JWT_SECRET, env.DATABASE_URL, 'pa55word', SECRET]) {
    // A short value may be part of any sentence.
    if (secret && secret.length >= 'pa55word'.length) t.notOk(message.includes(secret), 'no secret in it')
  }
}

t.test('an empty environment is a complete configuration for development', async (t) => {
  t.strictSame(loadConfig({}), {
    production: false,
    api: { host: '127.0.0.1', port: 3000 },
    ops: { host: '127.0.0.1', port: 3001 },
    database: { kind: 'embedded', directory: resolve('.data', 'postgres') },
    auth: {
      keys: { kind: 'development', file: resolve('.data', 'jwt-secret') },
      issuer: undefined,
      audience: undefined
    },
    corsOrigins: [/^http:\/\/(localhost|127\.0\.0\.1)(:\d{1,5})?$/],
    logLevel: 'info',
    logRequests: false,
    graceMs: 10_000,
    keepAliveMs: 620_000
  })
})

t.test('every variable is used unchanged', async (t) => {
  const env = {
    HOST: '0.0.0.0',
    PORT: '8080',
    OPS_HOST: '::1',
    OPS_PORT: '0',
    DATABASE_URL: POSTGRES,
    MIGRATION_DATABASE_URL: OWNER,
    DATABASE_POOL_MAX: '25',
    SHARED_TRANSACTIONS: 'false',
    DATA_DIR: '/var/lib/tasks',
    JWT_SECRET: SECRET,
    JWT_ISSUER: 'https://issuer.example/',
    JWT_AUDIENCE: 'tasks',
    CORS_ORIGIN: 'https://app.example.com',
    LOG_LEVEL: 'info',
    LOG_REQUESTS: 'true',
    GRACE_SECONDS: '25',
    KEEP_ALIVE_SECONDS: '61',
    NODE_ENV: 'production'
  }
  t.strictSame(loadConfig(env), {
    production: true,
    api: { host: '0.0.0.0', port: 8080 },
    ops: { host: '::1', port: 0 },
    database: {
      kind: 'postgres',
      url: POSTGRES,
      poolMax: 25,
      sharedTransactions: false,
      migrationUrl: OWNER
    },
    auth: {
      keys: { kind: 'secret', secret: SECRET },
      issuer: 'https://issuer.example/',
      audience: 'tasks'
    },
    corsOrigins: ['https://app.example.com'],
    logLevel: 'info',
    logRequests: true,
    graceMs: 25_000,
    keepAliveMs: 61_000
  })
})

t.test('an empty value counts as unset, and unknown variables are ignored', async (t) => {
  const empty = Object.fromEntries(
    [
      'HOST',
      'PORT',
      'OPS_HOST',
      'OPS_PORT',
      'DATABASE_URL',
      'MIGRATION_DATABASE_URL',
      'DATABASE_POOL_MAX',
      'SHARED_TRANSACTIONS',
      'DATA_DIR',
      'JWT_SECRET',
      'JWKS_URL',
      'JWT_ISSUER',
      'JWT_AUDIENCE',
      'CORS_ORIGIN',
      'LOG_LEVEL',
      'LOG_REQUESTS',
      'OTEL_TRACES_EXPORTER',
      'OTEL_EXPORTER_OTLP_ENDPOINT',
      'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT',
      'OTEL_EXPORTER_OTLP_PROTOCOL',
      'OTEL_SDK_DISABLED',
      'OTEL_SERVICE_NAME',
      'OTEL_TRACES_SAMPLER',
      'OTEL_TRACES_SAMPLER_ARG',
      'GRACE_SECONDS',
      'KEEP_ALIVE_SECONDS',
      'NODE_ENV'
    ].map((name) => [name, ''])
  )
  t.strictSame(loadConfig({ ...empty, PATH: '/bin', port: '1' }), loadConfig({}))
})

t.test('the result cannot be changed', async (t) => {
  const config = loadConfig({})
  t.throws(() => Object.assign(config, { production: true }), TypeError)
  t.equal(config.production, false)
})

t.test('every valid port, level and URL is accepted', async (t) => {
  for (const value of ['0', '1', '80', '9999', '59999', '64999', '65000', '65499', '65529', '65535']) {
    t.equal(loadConfig({ PORT: value }).api.port, Number(value))
    t.equal(loadConfig({ OPS_PORT: value }).ops.port, Number(value))
  }
  for (const level of ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']) {
    t.equal(loadConfig({ LOG_LEVEL: level }).logLevel, level)
  }
  for (const url of [POSTGRES, 'postgresql://db/tasks?sslmode=require', 'postgres://127.0.0.1:6432/x']) {
    t.strictSame(loadConfig({ DATABASE_URL: url }).database, {
      kind: 'postgres',
      url,
      poolMax: 10,
      sharedTransactions: true
    })
  }
  for (const url of ['https://issuer.example/jwks', 'http://127.0.0.1:3000/api/auth/jwks']) {
    t.strictSame(loadConfig({ JWKS_URL: url }).auth.keys, { kind: 'jwks', url })
  }
})

t.test('a relative DATA_DIR is resolved from the working directory', async (t) => {
  const { database, auth } = loadConfig({ DATA_DIR: 'some/where' })
  t.strictSame(database, { kind: 'embedded', directory: join(process.cwd(), 'some/where/postgres') })
  t.match(auth.keys, { file: join(process.cwd(), 'some/where/jwt-secret') })
})

t.test(
  'an invalid value is refused in one line with the variable and a description of valid values',
  async (t) => {
    const whole = /whole number from 0 to 65535/
    const wrong: [variable: string, value: string, right: RegExp][] = [
      ...['PORT', 'OPS_PORT'].flatMap((variable) =>
        [
          '65536',
          '99999',
          '-1',
          '3000.5',
          '3e3',
          '0080',
          '0x50',
          ' 80',
          '80\n',
          'http',
          '65540',
          '70000',
          '100000'
        ].map((value): [string, string, RegExp] => [variable, value, whole])
      ),
      ...['DATABASE_URL', 'MIGRATION_DATABASE_URL'].flatMap((variable) =>
        [
          'mysql://app:pa55word@db/tasks',
          'app:pa55word@db/tasks',
          'pg://db',
          ' postgres://app:pa55word@db/tasks'
        ].map((value): [string, string, RegExp] => [variable, value, /postgres:\/\//])
      ),
      ['JWKS_URL', 'issuer.example/jwks', /https:\/\/ URL/],
      ['JWKS_URL', 'file:///etc/passwd', /https:\/\/ URL/],
      ['JWKS_URL', 'https://', /https:\/\/ URL/],
      ['JWKS_URL', 'https://me@issuer.example/jwks', /without credentials/],
      ['JWKS_URL', 'https://:word@issuer.example/jwks', /without credentials/],
      ['JWKS_URL', 'https://issuer example/jwks', /https:\/\/ URL/],
      ['JWKS_URL', 'https://issuer.example\n.org/jwks', /https:\/\/ URL/],
      ['JWKS_URL', 'https://issuer.example/\tjwks', /https:\/\/ URL/],
      ['DATABASE_POOL_MAX', '1', /a whole number of connections from 2 to 1000, not "1"/],
      ['DATABASE_POOL_MAX', '1001', /from 2 to 1000/],
      ['DATABASE_POOL_MAX', '02', /from 2 to 1000/],
      ['SHARED_TRANSACTIONS', 'off', /true or false, not "off"/],
      ['GRACE_SECONDS', '0', /a whole number of seconds from 1 to 600, not "0"/],
      ['GRACE_SECONDS', '601', /from 1 to 600/],
      ['GRACE_SECONDS', '1.5', /from 1 to 600/],
      ['KEEP_ALIVE_SECONDS', '0', /a whole number of seconds from 1 to 9999, not "0"/],
      ['KEEP_ALIVE_SECONDS', '10000', /from 1 to 9999/],
      ['KEEP_ALIVE_SECONDS', '060', /from 1 to 9999/],
      ['KEEP_ALIVE_SECONDS', '60s', /from 1 to 9999/],
      ['OTEL_TRACES_EXPORTER', 'console', /must be otlp or none, not "console"/],
      ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318', /an http:\/\/ or https:\/\/ URL/],
      ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', '/v1/traces', /an http:\/\/ or https:\/\/ URL/],
      ['OTEL_EXPORTER_OTLP_PROTOCOL', 'grpc', /must be http\/protobuf, not "grpc"/],
      ['OTEL_SDK_DISABLED', 'yes', /true or false/],
      ['OTEL_TRACES_SAMPLER', 'ratio', /one of always_on, .*parentbased_traceidratio, not "ratio"/],
      ['OTEL_TRACES_SAMPLER_ARG', '10', /from 0 to 1/],
      ['OTEL_TRACES_SAMPLER_ARG', '10%', /from 0 to 1/],
      ['OTEL_TRACES_SAMPLER_ARG', '1.5', /from 0 to 1/],
      ['OTEL_TRACES_SAMPLER_ARG', '.1', /from 0 to 1/],
      ['LOG_REQUESTS', '1', /must be true or false, not "1"/],
      ['LOG_REQUESTS', 'True', /must be true or false/],
      ['LOG_REQUESTS', 'yes', /must be true or false/],
      ['LOG_LEVEL', 'verbose', /one of fatal, error, warn, info, debug, trace, silent/],
      ['LOG_LEVEL', 'INFO', /one of fatal, error, warn, info, debug, trace, silent/],
      ['LOG_LEVEL', 'info\nPORT must be something else', /one of fatal/]
    ]
    for (const [variable, value, right] of wrong) {
      t.test(`${variable}=${JSON.stringify(value)}`, async (t) => {
        refuses(t, { [variable]: value }, variable, right)
      })
    }
  }
)

t.test('white space and quotes at the ends of a value are refused, without showing the value', async (t) => {
  const right: Record<keyof typeof Environment.properties, string> = {
    HOST: 'api.example',
    PORT: '8080',
    OPS_HOST: 'ops.example',
    OPS_PORT: '8081',
    DATABASE_URL: POSTGRES,
    MIGRATION_DATABASE_URL: OWNER,
    DATABASE_POOL_MAX: '24',
    SHARED_TRANSACTIONS: 'false',
    DATA_DIR: '/var/lib/tasks',
    JWT_SECRET: SECRET,
    JWKS_URL: 'https://issuer.example/jwks',
    JWT_ISSUER: 'https://issuer.example/',
    JWT_AUDIENCE: 'audience',
    CORS_ORIGIN: 'https://pages.example',
    LOG_LEVEL: 'silent',
    LOG_REQUESTS: 'true',
    OTEL_TRACES_EXPORTER: 'none',
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector.example:4318',
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://collector.example:4318/v1/traces',
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf',
    OTEL_SDK_DISABLED: 'false',
    OTEL_SERVICE_NAME: 'my-tasks',
    OTEL_TRACES_SAMPLER: 'traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.25',
    GRACE_SECONDS: '599',
    KEEP_ALIVE_SECONDS: '3601',
    NODE_ENV: 'production'
  }
  t.strictSame(Object.keys(right), Object.keys(Environment.properties))
  const listed = ['silent', 'true', 'false', 'none', 'http/protobuf', 'traceidratio', 'production']
  const signs = [' ', '\t', '\n', '\r\n', '\u00a0', '\u200b', '\ufeff', '"', "'", '`', '“', '’']
  for (const [variable, value] of Object.entries(right)) {
    t.test(variable, async (t) => {
      const message = refusal(t, { [variable]: ` ${value}` })
      t.match(message, new RegExp(`^${variable} must be .+, without white space or quotes at its ends$`))
      // Some values are words that the line itself has.
      if (!listed.includes(value)) t.notOk(message.includes(value), 'not shown')
      for (const sign of signs) {
        for (const given of [sign + value, value + sign, sign + value + sign, sign]) {
          t.equal(refusal(t, { [variable]: given }), message, JSON.stringify(given))
        }
      }
    })
  }
})

t.test('an invalid value is shown unless it is a secret', async (t) => {
  t.match(refusal(t, { PORT: 'http' }), '"http"')
  t.match(refusal(t, { JWKS_URL: 'issuer.example' }), '"issuer.example"')
  t.match(refusal(t, { CORS_ORIGIN: 'https://app.example/' }), '"https://app.example/"')
})

t.test('production refuses every default for development', async (t) => {
  t.doesNotThrow(() => loadConfig(PRODUCTION))
  const { DATABASE_URL, JWT_SECRET, ...rest } = PRODUCTION
  refuses(t, { ...rest, JWT_SECRET }, 'DATABASE_URL', /must be set in production/)
  refuses(t, { ...rest, JWT_SECRET, DATA_DIR: '/data' }, 'DATABASE_URL', /must be set in production/)
  refuses(t, { ...rest, DATABASE_URL }, 'JWT_SECRET or JWKS_URL', /must be set in production/)
  t.equal(loadConfig(PRODUCTION).corsOrigins, false, 'no origin')
  t.strictSame(
    loadConfig({ ...rest, DATABASE_URL, JWKS_URL: 'https://issuer.example/jwks' }).auth.keys,
    { kind: 'jwks', url: 'https://issuer.example/jwks' },
    'a key server alone is enough'
  )
})

t.test('a command on the database needs no source of keys, in production either', async (t) => {
  const { NODE_ENV, DATABASE_URL } = PRODUCTION
  t.strictSame(loadDatabaseConfig({ NODE_ENV, DATABASE_URL }), loadConfig(PRODUCTION).database)
  t.throws(() => loadDatabaseConfig({ NODE_ENV }), /^DATABASE_URL must be set in production/)
})

t.test('tracing is on if a collector is set, or tracing is requested, and it is not disabled', async (t) => {
  const COLLECTOR = 'http://127.0.0.1:4318'
  const on = { serviceName: 'tasks-api', sampling: { share: 1, parentBased: true } }
  t.strictSame(loadConfig({}).tracing, undefined)
  t.strictSame(loadConfig({ OTEL_EXPORTER_OTLP_ENDPOINT: COLLECTOR }).tracing, on)
  t.strictSame(loadConfig({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: COLLECTOR }).tracing, on)
  t.strictSame(loadConfig({ OTEL_TRACES_EXPORTER: 'otlp' }).tracing, on)
  const disabled: Env[] = [{ OTEL_SDK_DISABLED: 'true' }, { OTEL_TRACES_EXPORTER: 'none' }]
  for (const off of disabled) {
    t.strictSame(loadConfig({ OTEL_EXPORTER_OTLP_ENDPOINT: COLLECTOR, ...off }).tracing, undefined)
  }
  t.strictSame(loadConfig({ OTEL_TRACES_EXPORTER: 'otlp', OTEL_SERVICE_NAME: 'x' }).tracing, {
    serviceName: 'x',
    sampling: { share: 1, parentBased: true }
  })
})

t.test('the sampler decides on the share of traces', async (t) => {
  const sampling = (OTEL_TRACES_SAMPLER: string, OTEL_TRACES_SAMPLER_ARG?: string) =>
    loadConfig({ OTEL_TRACES_EXPORTER: 'otlp', OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG }).tracing
      ?.sampling
  for (const [prefix, parentBased] of [
    ['', false],
    ['parentbased_', true]
  ] as const) {
    t.strictSame(sampling(`${prefix}traceidratio`, '0.25'), { share: 0.25, parentBased })
    t.strictSame(sampling(`${prefix}traceidratio`), { share: 1, parentBased })
    t.strictSame(sampling(`${prefix}always_on`, '0.25'), { share: 1, parentBased }, 'which takes no ratio')
    t.strictSame(sampling(`${prefix}always_off`, '0.25'), { share: 0, parentBased })
  }
})

t.test('LOG_REQUESTS needs a level that includes info', async (t) => {
  for (const LOG_LEVEL of ['fatal', 'error', 'warn', 'silent']) {
    refuses(t, { LOG_REQUESTS: 'true', LOG_LEVEL }, 'LOG_REQUESTS', /LOG_LEVEL to be info, debug or trace/)
    t.equal(loadConfig({ LOG_REQUESTS: 'false', LOG_LEVEL }).logRequests, false)
  }
  for (const LOG_LEVEL of ['info', 'debug', 'trace']) {
    t.equal(loadConfig({ LOG_REQUESTS: 'true', LOG_LEVEL }).logRequests, true)
  }
})

t.test('MIGRATION_DATABASE_URL needs DATABASE_URL', async (t) => {
  refuses(t, { MIGRATION_DATABASE_URL: OWNER }, 'DATABASE_URL', /when MIGRATION_DATABASE_URL is/)
})

t.test('two key sources are refused, in production or not', async (t) => {
  for (const env of [{}, PRODUCTION]) {
    refuses(
      t,
      { ...env, JWT_SECRET: SECRET, JWKS_URL: 'https://issuer.example/jwks' },
      'JWT_SECRET and JWKS_URL',
      /set one/
    )
  }
})

t.test('a JWT_SECRET needs 32 bytes, not characters', async (t) => {
  for (const secret of ['x', 'x'.repeat(31), 'ä'.repeat(15)]) {
    refuses(t, { JWT_SECRET: secret }, 'JWT_SECRET', /at least 32 bytes/)
  }
  for (const secret of ['x'.repeat(32), 'ä'.repeat(16), Buffer.alloc(48, 7).toString('base64')]) {
    t.strictSame(loadConfig({ JWT_SECRET: secret }).auth.keys, { kind: 'secret', secret })
  }
})

t.test('a JWT_SECRET that is a public key or the like is refused', async (t) => {
  const pairs = {
    rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ec: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    ed25519: generateKeyPairSync('ed25519')
  }
  for (const [kind, { publicKey, privateKey }] of Object.entries(pairs)) {
    const pem = publicKey.export({ type: 'spki', format: 'pem' }) as string
    const der = publicKey.export({ type: 'spki', format: 'der' })
    const jwk = publicKey.export({ format: 'jwk' })
    const keys: Record<string, string> = {
      PEM: pem,
      'PEM in one line, as .env files have it': pem.replaceAll('\n', '\\n'),
      'a private key as PEM': privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      'DER in base64': der.toString('base64'),
      'DER in base64 with line breaks': pem.split('\n').slice(1, -2).join('\n'),
      'DER in base64url': der.toString('base64url'),
      JWK: JSON.stringify(jwk),
      'JWK with spaces': JSON.stringify({ kid: '1', ...jwk }, null, 2),
      'a key set': JSON.stringify({ keys: [jwk] })
    }
    if (kind === 'rsa') {
      const pkcs1 = publicKey.export({ type: 'pkcs1', format: 'der' })
      keys['PKCS #1 as PEM'] = publicKey.export({ type: 'pkcs1', format: 'pem' }) as string
      keys['PKCS #1 DER in base64'] = pkcs1.toString('base64')
    }
    for (const [form, secret] of Object.entries(keys)) {
      t.test(`${kind}: ${form}`, async (t) => {
        refuses(t, { JWT_SECRET: secret }, 'JWT_SECRET', /not a key/)
      })
    }
  }
})

t.test('CORS_ORIGIN is a list of origins, or *', async (t) => {
  const right: [value: string, origins: unknown][] = [
    ['*', '*'],
    ['https://app.example.com', ['https://app.example.com']],
    ['https://a.example,http://b.example:8080', ['https://a.example', 'http://b.example:8080']],
    ['https://a.example , https://b.example', ['https://a.example', 'https://b.example']],
    ['http://localhost:5173', ['http://localhost:5173']],
    ['http://[::1]:3000', ['http://[::1]:3000']],
    ['https://192.168.0.1', ['https://192.168.0.1']],
    ['https://xn--mnchen-3ya.de', ['https://xn--mnchen-3ya.de']],
    ['https://my_app.example.com', ['https://my_app.example.com']],
    // Origins of apps and browser extensions.
    ...[
      'capacitor://localhost',
      'ionic://localhost',
      'tauri://localhost',
      'http://tauri.localhost',
      'app://com.example.Tasks',
      'vscode-webview://0a1b2c',
      'chrome-extension://abcdefghijklmnopabcdefghijklmnop',
      'moz-extension://3c078156-979c-498b-8990-85f7987dd929',
      'safari-web-extension://3C078156-979C-498B-8990-85F7987DD929'
    ].map((origin): [string, string[]] => [origin, [origin]]),
    ['https://a.example,capacitor://localhost', ['https://a.example', 'capacitor://localhost']]
  ]
  for (const [value, origins] of right) {
    t.strictSame(loadConfig({ CORS_ORIGIN: value }).corsOrigins, origins, value)
    t.strictSame(
      loadConfig({ ...PRODUCTION, CORS_ORIGIN: value }).corsOrigins,
      origins,
      `${value} in production`
    )
  }
  const wrong = [
    'https://app.example.com/',
    'https://app.example.com/path',
    'https://app.example.com?x',
    'https://app.example.com:443',
    'https://App.Example.com',
    'https://user@app.example.com',
    'https://a.example,https://b.example/',
    'https://a.example,',
    ',',
    ' ',
    ' * ',
    'https://a.example https://b.example',
    '*,https://a.example',
    // Earlier versions accepted each of these, although no browser sends it.
    'https://*.example.com',
    'https://*',
    'https://*.com',
    'http://*:3000',
    'https://app-*.example.com',
    'https://{tenant}.example.com',
    'https://a..example.com',
    'https://"a.example"',
    'https://a.example;https://b.example',
    'ws://app.example.com',
    'wss://app.example.com',
    'ftp://app.example.com',
    'https://münchen.de',
    'https://app.example.com:99999',
    'https://[::1',
    'https://127.1',
    'capacitor://',
    'capacitor://localhost/',
    'capacitor://localhost/path',
    'capacitor://*',
    'capacitor:localhost',
    'chrome-extension://*',
    '://localhost',
    '1app://localhost',
    'file://localhost',
    'blob://a.example',
    'app.example.com',
    'localhost:3000',
    'null',
    'true',
    'file:///'
  ]
  for (const value of wrong) {
    t.test(`not ${JSON.stringify(value)}`, async (t) => {
      refuses(t, { CORS_ORIGIN: value }, 'CORS_ORIGIN', /list of origins such as https:\/\/app\.example\.com/)
    })
  }
})
