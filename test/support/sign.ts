import { randomBytes } from 'node:crypto'
import { type JWTPayload, SignJWT } from 'jose'

export const SECRET = randomBytes(32).toString('hex')

/** Signs exactly these claims with `SECRET`. By default `exp` is in an hour. */
export function sign(claims: JWTPayload & Record<string, unknown>, secret = SECRET): Promise<string> {
  const exp = Math.floor(Date.now() / 1000) + 3600
  return new SignJWT({ exp, ...claims } as JWTPayload)
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .sign(Buffer.from(secret))
}
