import { createHmac, KeyObject, sign as signWith } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { exportJWK, generateKeyPair, type JWK } from 'jose'
import { SECRET, startApp } from '../support/api.js'
import { startKeyServer } from '../support/key-server.js'
import type { Test } from '../support/tap.js'

type Json = string | Buffer | object

/** Signs the first two parts of a token. */
export type Signer = (input: Buffer) => Buffer

/** A string or Buffer is used unchanged. */
export const part = (json: Json): string =>
  (Buffer.isBuffer(json)
    ? json
    : Buffer.from(typeof json === 'string' ? json : JSON.stringify(json))
  ).toString('base64url')

/** The compact form of exactly these parts: RFC 7515, section 7.1. */
export function compact(header: Json, payload: Json, signer: Signer): string {
  const input = `${part(header)}.${part(payload)}`
  return `${input}.${signer(Buffer.from(input)).toString('base64url')}`
}

export const hmac =
  (secret: string | Buffer, hash = 'sha256'): Signer =>
  (input) =>
    createHmac(hash, secret).update(input).digest()

/** An app, and a key that it trusts. */
export interface Source {
  app: FastifyInstance
  alg: string
  /** The header of a valid token. */
  header: { alg: string; kid?: string }
  sign: Signer
  privateKey?: KeyObject
  /** As its server publishes it. Undefined for a secret. */
  jwk?: JWK
}

const SIGNERS: Record<string, (key: KeyObject) => Signer> = {
  RS256: (key) => (input) => signWith('sha256', input, key),
  ES256: (key) => (input) => signWith('sha256', input, { key, dsaEncoding: 'ieee-p1363' }),
  EdDSA: (key) => (input) => signWith(null, input, key)
}

/** A key that the service does not know. */
export async function makeKey(alg: string) {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
  const key = KeyObject.from(privateKey as never)
  return { key, jwk: await exportJWK(publicKey), sign: (SIGNERS[alg] as (key: KeyObject) => Signer)(key) }
}

/** An app with a secret, and one with a key server for each kind of key. */
export async function startSources(t: Test): Promise<Source[]> {
  const secret = { app: await startApp(t), alg: 'HS256', header: { alg: 'HS256' }, sign: hmac(SECRET) }
  const keys = await Promise.all(Object.keys(SIGNERS).map(async (alg) => ({ alg, ...(await makeKey(alg)) })))
  // Without alg, so that the service itself must restrict the algorithms.
  const published = keys.map(({ alg, jwk }) => ({ ...jwk, kid: alg, use: 'sig' }))
  const server = await startKeyServer(t, published)
  const app = await startApp(t, 'postgres', { JWT_SECRET: '', JWKS_URL: server.url })
  return [
    secret,
    ...keys.map(({ alg, key, sign }, n) => ({
      app,
      alg,
      header: { alg, kid: alg },
      sign,
      privateKey: key,
      jwk: published[n] as JWK
    }))
  ]
}
