/** How tokens are checked. */
export interface AuthOptions {
  /** Where the keys that sign tokens come from. */
  keys: { kind: 'secret'; secret: string } | { kind: 'jwks'; url: string }
  /** `iss` that a token must carry; unchecked when undefined. */
  issuer: string | undefined
  /** `aud` that a token must carry; unchecked when undefined. */
  audience: string | undefined
}
