import { type FormEvent, useRef, useState } from 'react'
import { authClient } from './auth'
import { Logo } from './icons'

interface Props {
  notice: string | undefined
  onSignedIn: () => void
}

export function SignIn({ notice, onSignedIn }: Props) {
  const [isNew, setIsNew] = useState(false)
  const [isBusy, setIsBusy] = useState(false)
  const [problem, setProblem] = useState<string>()
  const email = useRef<HTMLInputElement>(null)

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault()
    const form = new FormData(event.currentTarget)
    const fields = { email: String(form.get('email')), password: String(form.get('password')) }
    setIsBusy(true)
    setProblem(undefined)
    const { error } = await (isNew
      ? authClient.signUp.email({ ...fields, name: fields.email })
      : authClient.signIn.email(fields)
    ).catch(() => ({ error: { message: undefined } }))
    setIsBusy(false)
    if (!error) return onSignedIn()
    setProblem(error.message ?? 'Signing in is not possible at the moment. Please try again.')
    email.current?.focus()
  }

  return (
    <main className="sign-in">
      <Logo />
      <h1>{isNew ? 'Create your account' : 'Sign in to Tasks'}</h1>
      {notice && <p role="status">{notice}</p>}
      <form className="card" onSubmit={submit} aria-busy={isBusy}>
        {problem && (
          <p className="problem" role="alert">
            {problem}
          </p>
        )}
        <label>
          Email
          <input ref={email} name="email" type="email" autoComplete="username" required />
        </label>
        <label>
          Password
          <input
            name="password"
            type="password"
            autoComplete={isNew ? 'new-password' : 'current-password'}
            minLength={isNew ? 8 : undefined}
            aria-describedby={isNew ? 'password-rule' : undefined}
            required
          />
        </label>
        {isNew && (
          <p className="hint" id="password-rule">
            At least 8 characters.
          </p>
        )}
        <button className="primary" type="submit" disabled={isBusy}>
          {isNew ? 'Create account' : 'Sign in'}
        </button>
      </form>
      <p>
        {isNew ? 'Already have an account?' : 'New here?'}{' '}
        <button
          className="link"
          type="button"
          onClick={() => {
            setIsNew(!isNew)
            setProblem(undefined)
          }}
        >
          {isNew ? 'Sign in instead' : 'Create an account'}
        </button>
      </p>
    </main>
  )
}
