export interface AuthOptions {
  /** The source of the keys that sign tokens. */
  keys: { kind: 'secret'; secret: string } | { kind: 'jwks'; url: string }
  /** The `iss` that a token must have; unchecked if undefined. */
  issuer: string | undefined
  /** The `aud` that a token must have; unchecked if undefined. */
  audience: string | undefined
}
