import { type FormEvent, useCallback, useRef, useState, useSyncExternalStore } from 'react'
import type { Task } from './api'
import { authClient } from './auth'
import { ConflictDialog } from './ConflictDialog'
import { EditDialog } from './EditDialog'
import { CloseIcon, Logo } from './icons'
import { TaskRow } from './TaskRow'
import { type Conflict, useTasks } from './useTasks'

// The page has the whole list, so it does not use ?status=. A filter works at once, and offline too.
const FILTERS = {
  all: { label: 'All', matches: (_: Task) => true, empty: 'Nothing to do yet. Add your first task above.' },
  pending: { label: 'Pending', matches: (task: Task) => !task.completed, empty: 'Nothing left to do.' },
  completed: { label: 'Completed', matches: (task: Task) => task.completed, empty: 'Nothing completed yet.' }
}

interface Props {
  user: { id: string; email: string }
  onSignedOut: () => void
}

export function TaskPage({ user, onSignedOut }: Props) {
  const { tasks, drafts, conflict, problem, create, complete, remove, read, update, ...rest } = useTasks(
    user.id,
    onSignedOut
  )
  const [filter, setFilter] = useState<keyof typeof FILTERS>('all')
  const [edited, setEdited] = useState<Task>()
  // Read out by screen readers.
  const [news, setNews] = useState('')
  const [signOutProblem, setSignOutProblem] = useState<string>()
  const field = useRef<HTMLInputElement>(null)

  async function add(event: FormEvent<HTMLFormElement>) {
    event.preventDefault()
    const input = field.current as HTMLInputElement
    const title = input.value
    input.value = ''
    setNews(`Added ${title}.`)
    const isCreated = await create(title)
    // The text is restored for correction, unless the user has typed more.
    if (!isCreated && input.value === '') input.value = title
  }

  const toggle = useCallback(
    (task: Task, completed: boolean) => {
      setNews(`${completed ? 'Completed' : 'Reopened'} ${task.title}.`)
      complete(task, completed)
    },
    [complete]
  )

  const drop = useCallback(
    (task: Task) => {
      setNews(`Deleted ${task.title}.`)
      remove(task)
    },
    [remove]
  )

  function keepMine({ theirs, mine, etag }: Conflict) {
    rest.settle()
    update(theirs.id, mine, etag)
  }

  async function signOut() {
    const { error } = await authClient.signOut().catch((error) => ({ error }))
    setSignOutProblem(error ? 'Signing out is not possible at the moment. Please try again.' : undefined)
  }

  const visible = tasks?.filter(FILTERS[filter].matches)
  const left = tasks?.filter(FILTERS.pending.matches).length

  return (
    <>
      <header>
        <Logo />
        <span className="brand">Tasks</span>
        <span className="user">{user.email}</span>
        <button type="button" onClick={signOut}>
          Sign out
        </button>
      </header>
      <main>
        <h1>My tasks</h1>
        <Connection outage={rest.outage} pending={rest.pending} onRetry={rest.retryNow} />
        {(problem ?? signOutProblem) && (
          <p className="banner problem" role="alert">
            <span>{problem ?? signOutProblem}</span>
            <button
              className="icon"
              type="button"
              aria-label="Dismiss"
              onClick={() => {
                rest.dismiss()
                setSignOutProblem(undefined)
              }}
            >
              <CloseIcon />
            </button>
          </p>
        )}
        <form className="add" onSubmit={add}>
          <input
            ref={field}
            id="new-task"
            aria-label="New task"
            placeholder="What needs to be done?"
            autoComplete="off"
            required
          />
          <button className="primary" type="submit">
            Add
          </button>
        </form>
        <div className="toolbar">
          <fieldset className="filters">
            <legend className="hidden">Show</legend>
            {Object.entries(FILTERS).map(([name, { label }]) => (
              <label key={name}>
                <input
                  type="radio"
                  name="filter"
                  checked={name === filter}
                  onChange={() => setFilter(name as keyof typeof FILTERS)}
                />
                {label}
              </label>
            ))}
          </fieldset>
          {tasks && tasks.length > 0 && (
            <p className="count">
              {left} of {tasks.length} to do
            </p>
          )}
        </div>
        {visible?.length ? (
          <ul className="tasks" aria-label="Tasks">
            {visible.map((task) => (
              <TaskRow
                key={task.id}
                task={task}
                isDraft={drafts.has(task.id)}
                onToggle={toggle}
                onEdit={setEdited}
                onDelete={drop}
              />
            ))}
          </ul>
        ) : (
          <p className="empty">{visible ? FILTERS[filter].empty : 'Loading your tasks…'}</p>
        )}
        <p className="hidden" role="status">
          {news}
        </p>
      </main>
      {edited && (
        <EditDialog
          key={edited.id}
          read={() => read(edited.id)}
          onSave={(fields, etag) => {
            setNews(`Saved ${fields.title}.`)
            update(edited.id, fields, etag)
          }}
          onClose={() => setEdited(undefined)}
        />
      )}
      {conflict && (
        <ConflictDialog
          conflict={conflict}
          onKeepMine={() => keepMine(conflict)}
          onKeepTheirs={rest.settle}
        />
      )}
    </>
  )
}

interface ConnectionProps {
  outage: ReturnType<typeof useTasks>['outage']
  /** Number of queued changes. */
  pending: number
  onRetry: () => void
}

/** Tells about connection problems, and about the queued changes. */
function Connection({ outage, pending, onRetry }: ConnectionProps) {
  const isOnline = useSyncExternalStore(subscribeToNetwork, () => navigator.onLine)
  const state = isOnline ? outage : 'offline'
  return (
    <div className={state ? 'banner notice' : 'hidden'}>
      {/* Always there: screen readers only tell what changes in a region that they know. */}
      <p role="status">
        {state && STATES[state]}
        {state &&
          pending > 0 &&
          ` ${pending === 1 ? 'One change waits' : `${pending} changes wait`} to be saved.`}
      </p>
      {state && isOnline && (
        <button type="button" onClick={onRetry}>
          Try now
        </button>
      )}
    </div>
  )
}

const STATES = {
  offline: 'You are offline. Trying again when you are back.',
  unreachable: 'The service cannot be reached. Trying again.',
  busy: 'The service is busy. Trying again in a moment.'
}

function subscribeToNetwork(onChange: () => void) {
  window.addEventListener('online', onChange)
  window.addEventListener('offline', onChange)
  return () => {
    window.removeEventListener('online', onChange)
    window.removeEventListener('offline', onChange)
  }
}
