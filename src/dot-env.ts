import { readFileSync } from 'node:fs'
import { StartError } from '../db/errors.js'

/** A line that is blank, a comment, or an assignment. A quoted value may span lines. */
const LINE =
  /[ \t]*(?:#.*|(?:export[ \t]+)?(?<name>[\w.-]+)[ \t]*=[ \t]*(?:(?<quoted>"[^"]*"|'[^']*'|`[^`]*`)|(?<plain>(?!["'`])[^\s#](?:[^\n#]*[^\s#])?)?)(?:[ \t]+#.*)?)?[ \t]*(?:\n|$)/y

/**
 * Adds the variables of a `.env` file to the environment, unless that is for production. A variable that is already set
 * keeps its value.
 *
 * `process.loadEnvFile` is not used: it takes a byte order mark as part of the first name, and skips lines that it
 * cannot parse (https://github.com/nodejs/node/issues/56686). The service would then run with another secret.
 *
 * @throws StartError when the file cannot be read, or a line is ambiguous
 */
export function loadDotEnv(env: Record<string, string | undefined>, file = '.env'): void {
  if (env.NODE_ENV === 'production') return
  let bytes: Buffer
  try {
    bytes = readFileSync(file)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return
    throw new StartError(`.env: cannot be read: ${message}`)
  }
  for (const [name, value] of parse(decode(bytes))) env[name] ??= value
}

function decode(bytes: Buffer): string {
  try {
    // TextDecoder drops a byte order mark.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    // UTF-16 without a byte order mark is valid UTF-8 with a NUL after each letter.
    if (!text.includes('\0')) return text.replace(/\r\n?/g, '\n')
  } catch {}
  throw new StartError('.env: this is not UTF-8 text: save it as UTF-8')
}

function parse(text: string): Map<string, string> {
  const variables = new Map<string, string>()
  for (LINE.lastIndex = 0; LINE.lastIndex < text.length; ) {
    const at = LINE.lastIndex
    const match = LINE.exec(text)
    if (!match) {
      const line = text.slice(0, at).split('\n').length
      throw new StartError(
        `.env: line ${line} is not NAME=value; a value with a # or a quote in it needs quotes around it`
      )
    }
    const { name, quoted, plain = '' } = match.groups as Record<string, string | undefined>
    if (name) variables.set(name, quoted ? unquote(quoted) : plain)
  }
  return variables
}

function unquote(quoted: string): string {
  const text = quoted.slice(1, -1)
  return quoted.startsWith('"') ? text.replaceAll('\\n', '\n') : text
}
