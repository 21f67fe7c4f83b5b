import { parseArgs } from 'node:util'
import { StartError } from '../db/errors.js'
import { loadConfig } from '../src/config.js'
import { resolveDevelopmentSecret } from '../src/development-secret.js'
import { issueToken } from '../src/token.js'
import { runCommand } from './command.js'

// npm run -s token -- alice [--ttl 1h]: prints a token.
await runCommand(async () => {
  const { positionals, values } = parseArgs({ allowPositionals: true, options: { ttl: { type: 'string' } } })
  const [sub, ...rest] = positionals
  if (!sub || rest.length > 0) throw new StartError('usage: npm run -s token -- <user id> [--ttl 1h]')
  console.log(await issueToken(resolveDevelopmentSecret(loadConfig(process.env).auth), sub, values.ttl))
})
