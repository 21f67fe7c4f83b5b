import { jwtClient } from 'better-auth/client/plugins'
import { createAuthClient } from 'better-auth/react'

/** Better Auth is at /api/auth of this page's own origin. The session is an HttpOnly cookie. */
export const authClient = createAuthClient({ plugins: [jwtClient()] })
