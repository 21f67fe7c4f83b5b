import { useCallback, useState } from 'react'
import { authClient } from './auth'
import { SignIn } from './SignIn'
import { TaskPage } from './TaskPage'

export function App() {
  const { data: session, isPending, error, refetch } = authClient.useSession()
  const [hasEnded, setHasEnded] = useState(false)
  const onSignedOut = useCallback(() => setHasEnded(true), [])

  if (session && !hasEnded) {
    // The key discards all state when the user changes.
    return <TaskPage key={session.user.id} user={session.user} onSignedOut={onSignedOut} />
  }
  if (isPending) return <p className="wait">Loading…</p>
  if (error && !hasEnded) {
    return (
      <main className="wait">
        <p role="alert">Signing in is not possible at the moment. Please check your connection.</p>
        <button type="button" onClick={() => refetch()}>
          Try again
        </button>
      </main>
    )
  }
  return (
    <SignIn
      notice={hasEnded ? 'Your session has ended. Please sign in again.' : undefined}
      onSignedIn={() => setHasEnded(false)}
    />
  )
}
