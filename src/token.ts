import { SignJWT } from 'jose'
import { StartError } from '../db/errors.js'
import type { AuthOptions } from '../plugins/auth/options.js'

/**
 * Signs a token for `sub` with the service's secret, and with the `iss` and `aud` that the service requires.
 *
 * @param ttl validity as a number and a unit: `90s`, `15m`, `1h`, `7d`
 * @throws StartError if the keys come from an issuer, or `ttl` is invalid
 */
export async function issueToken(auth: AuthOptions, sub: string, ttl = '1h'): Promise<string> {
  if (auth.keys.kind !== 'secret') {
    throw new StartError('JWKS_URL is set: tokens come from the issuer, this service cannot sign any')
  }
  if (!/^\d{1,6}[smhd]$/.test(ttl)) {
    throw new StartError(
      `--ttl must be a number and one of s, m, h, d, such as 1h, not ${JSON.stringify(ttl)}`
    )
  }
  const jwt = new SignJWT().setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).setSubject(sub).setIssuedAt()
  if (auth.issuer !== undefined) jwt.setIssuer(auth.issuer)
  if (auth.audience !== undefined) jwt.setAudience(auth.audience)
  return jwt.setExpirationTime(ttl).sign(Buffer.from(auth.keys.secret))
}
