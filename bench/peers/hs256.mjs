import { createHmac, timingSafeEqual } from 'node:crypto'

/** Checks HS256 tokens without a library, for some peers. Returns the claims, or undefined. */
export function verifier(secret) {
  return (authorization) => {
    if (!authorization?.startsWith('Bearer ')) return undefined
    const token = authorization.slice(7)
    const dot = token.lastIndexOf('.')
    const signed = token.slice(0, dot)
    const expected = createHmac('sha256', secret).update(signed).digest()
    const signature = Buffer.from(token.slice(dot + 1), 'base64url')
    if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) return undefined
    const [header, payload] = signed
      .split('.')
      .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()))
    return header.alg === 'HS256' && payload.exp > Date.now() / 1000 ? payload : undefined
  }
}
