// Signs users up and in, and issues the JWTs for the tasks API. https://www.better-auth.com
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { betterAuth } from 'better-auth'
import { getMigrations } from 'better-auth/db/migration'
import { toNodeHandler } from 'better-auth/node'
import { jwt } from 'better-auth/plugins'
import { openDatabase } from './database.js'

const {
  ISSUER_PORT = '3002',
  PAGE_URL = 'http://127.0.0.1:5173',
  JWT_AUDIENCE = 'tasks-api',
  JWT_LIFETIME = '15m',
  DATA_DIR = '.data/issuer'
} = process.env

mkdirSync(DATA_DIR, { recursive: true, mode: 0o700 })
const database = await openDatabase(`${DATA_DIR}/pgdata`)

const auth = betterAuth({
  // Where browsers reach the issuer: through the page's own origin. It is also the `iss` of the tokens.
  baseURL: PAGE_URL,
  trustedOrigins: [PAGE_URL, PAGE_URL.replace('127.0.0.1', 'localhost')],
  secret: secret(`${DATA_DIR}/secret`),
  database: { dialect: database.dialect, type: 'postgres' },
  emailAndPassword: { enabled: true },
  plugins: [
    jwt({
      jwt: {
        issuer: PAGE_URL,
        audience: JWT_AUDIENCE,
        expirationTime: JWT_LIFETIME,
        // The API asks for no more than `sub`, the user's id. Without this, the token also holds name and email.
        definePayload: () => ({})
      }
    })
  ]
})

const { runMigrations } = await getMigrations(auth.options)
await runMigrations()

const server = createServer(toNodeHandler(auth)).listen(Number(ISSUER_PORT), '127.0.0.1')

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    server.close()
    server.closeAllConnections()
    await database.close()
    process.exit()
  })
}

/**
 * This secret signs the session cookies and encrypts the private keys in the database, so it must survive a restart.
 *
 * @param {string} file
 */
function secret(file) {
  try {
    writeFileSync(file, randomBytes(32).toString('base64url'), { mode: 0o600, flag: 'wx' })
  } catch {
    // An earlier start has made it.
  }
  return readFileSync(file, 'utf8')
}
