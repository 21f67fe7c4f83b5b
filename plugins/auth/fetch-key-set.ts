import type { JSONWebKeySet, JWK } from 'jose'
import { shown } from './refusals.js'

/** Timeout of the key server's answer, in milliseconds. */
const TIMEOUT_MS = 2_500
/** Largest answer of the key server, in bytes: about 2,500 keys. */
const MAX_BYTES = 1_048_576
const MAX_NAME_CHARACTERS = 300

/** The answer is not a key set. Its message follows the URL in the log, for example "answered 404". */
class UnusableAnswer extends Error {}

/**
 * Fetches a key set, and drops entries that are not objects. It follows no redirect, because only the operator may choose
 * the key server.
 *
 * @throws Error whose message has the URL and the reason, for the operator's log
 */
export async function fetchKeySet(url: string): Promise<JSONWebKeySet> {
  try {
    const response = await fetch(url, {
      headers: {
        accept: 'application/json, application/jwk-set+json',
        // Fetches are minutes apart. A network may have dropped an idle connection without a word.
        connection: 'close'
      },
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_MS)
    })
    if (response.status !== 200) {
      await response.body?.cancel()
      throw new UnusableAnswer(`answered ${response.status}${redirectOf(response, url)}`)
    }
    return { keys: keysOf(parse(await textOf(response), response)) }
  } catch (error) {
    throw new Error(`JWKS_URL ${nameOf(url)} ${reasonOf(error as Error)}`)
  }
}

/** A URL for the log, without its query: that may contain an API key, or the state of a sign-in. */
export function nameOf(url: string): string {
  const { origin, pathname, search } = new URL(url)
  return `${origin}${pathname}${search && '?...'}`.slice(0, MAX_NAME_CHARACTERS)
}

function redirectOf({ headers }: Response, url: string): string {
  const location = headers.get('location')
  if (location === null) return ''
  const target = URL.canParse(location, url) ? nameOf(new URL(location, url).href) : shown(location)
  return `, a redirect to ${target}`
}

async function textOf({ body }: Response): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  let bytes = 0
  for await (const chunk of body ?? []) {
    bytes += chunk.length
    if (bytes > MAX_BYTES) throw new UnusableAnswer(`answered more than ${MAX_BYTES} bytes`)
    text += decoder.decode(chunk, { stream: true })
  }
  return text + decoder.decode()
}

function parse(text: string, { headers }: Response): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new UnusableAnswer(
      `answered no JSON, but ${shown(headers.get('content-type') ?? 'no Content-Type')}`
    )
  }
}

function keysOf(answer: unknown): JWK[] {
  const { keys, jwks_uri } = (answer ?? {}) as Record<string, unknown>
  if (Array.isArray(keys)) return keys.filter(isObject).map(withoutEdwardsName)
  const hint = typeof jwks_uri === 'string' ? `; its jwks_uri is ${shown(jwks_uri)}` : ''
  throw new UnusableAnswer(`answered JSON that is no JSON Web Key Set${hint}`)
}

const isObject = (value: unknown): value is JWK =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * The algorithm of an Ed25519 key has two names, `EdDSA` and `Ed25519` (RFC 9864). The token and the key may use different
 * ones, and jose compares them as text. The curve has only this algorithm, so `alg` can be left out.
 */
function withoutEdwardsName(key: JWK): JWK {
  if (key.crv !== 'Ed25519' || (key.alg !== 'EdDSA' && key.alg !== 'Ed25519')) return key
  const { alg, ...rest } = key
  return rest
}

function reasonOf(error: Error): string {
  if (error instanceof UnusableAnswer) return error.message
  if (error.name === 'TimeoutError') return `did not answer within ${TIMEOUT_MS} ms`
  // The message of fetch is only "fetch failed"; the cause has the reason. If several addresses refused the connection,
  // the cause has a code but no message.
  const { message, code } = (error.cause ?? error) as NodeJS.ErrnoException
  return `cannot be read: ${message || code}`
}
