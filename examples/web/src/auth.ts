import { jwtClient } from 'better-auth/client/plugins'
import { createAuthClient } from 'better-auth/react'

/** Better Auth under this page's own origin, at /api/auth. The session is an HttpOnly cookie. */
export const authClient = createAuthClient({ plugins: [jwtClient()] })
