import { randomBytes, randomUUID } from 'node:crypto'
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { StartError } from '../db/errors.js'
import type { AuthOptions } from '../plugins/auth/options.js'
import type { AuthConfig } from './config.js'

/** 32 bytes in base64url. */
const SECRET_FORM = /^[\w-]{43}$/

/**
 * Replaces the development key source by the secret in its file. The first use makes the file, with mode 0600. Other key
 * sources are returned unchanged.
 *
 * @throws StartError when the file can be neither read nor made
 */
export function resolveDevelopmentSecret(auth: AuthConfig): AuthOptions {
  const { keys, ...rest } = auth
  if (keys.kind !== 'development') return { ...rest, keys }
  try {
    return { ...rest, keys: { kind: 'secret', secret: readOrMake(keys.file) } }
  } catch (error) {
    throw new StartError(`DATA_DIR: the development secret cannot be kept there: ${(error as Error).message}`)
  }
}

function readOrMake(file: string): string {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  const mine = `${file}.${randomUUID()}`
  writeFileSync(mine, randomBytes(32).toString('base64url'), { mode: 0o600 })
  try {
    // Linking is atomic and never replaces a file: when several processes start at once, all read the same secret.
    linkSync(mine, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    rmSync(mine, { force: true })
  }
  const secret = readFileSync(file, 'utf8')
  // An editor may have added a line feed or a byte order mark, which would change the secret.
  if (!SECRET_FORM.test(secret)) throw new Error(`${file} is damaged: delete it, and a new one is made`)
  return secret
}
