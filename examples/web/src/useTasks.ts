import { useCallback, useEffect, useMemo, useReducer, useRef, useState } from 'react'
import { Refused, SignedOut, type Task, tasksOf } from './api'
import { type Change, reduce, shown } from './changes'
import { type Outage, RequestQueue } from './queue'

export type Fields = Pick<Task, 'title' | 'description'>

const draft = (userId: string, id: string, title: string): Task => ({
  id,
  user_id: userId,
  title,
  description: null,
  completed: false,
  completed_at: null,
  created_at: '',
  updated_at: ''
})

/** Another user or tab has changed the task that the user edited. */
export interface Conflict {
  theirs: Task
  mine: Fields
  /** The version of `theirs`. */
  etag: string
}

/** The tasks of a user. A change is shown at once, and undone if the service refuses it. */
export function useTasks(userId: string, onSignedOut: () => void) {
  const [state, dispatch] = useReducer(reduce, { saved: undefined, pending: [] })
  const [outage, setOutage] = useState<Outage>()
  const [problem, setProblem] = useState<string>()
  const [conflict, setConflict] = useState<Conflict>()
  const api = useMemo(() => tasksOf(userId), [userId])
  const queue = useRef<RequestQueue>(null)

  /** Runs a request after the earlier ones. Returns undefined if it was refused, and shows that to the user. */
  const run = useCallback(
    async <T>(request: () => Promise<T>): Promise<T | undefined> => {
      try {
        return await queue.current?.run(request)
      } catch (error) {
        if (error instanceof SignedOut) onSignedOut()
        else setProblem((error as Error).message)
        return undefined
      }
    },
    [onSignedOut]
  )

  const load = useCallback(async () => {
    const answer = await run(api.list)
    if (answer) dispatch({ type: 'loaded', tasks: answer.data })
  }, [api, run])

  /** Shows a change, sends it to the service, and undoes it if that refuses. */
  const change = useCallback(
    async (change: Change, request: () => Promise<Task | undefined>): Promise<boolean> => {
      setProblem(undefined)
      dispatch({ type: 'changed', change })
      // The object distinguishes a refused request from one whose answer has no task.
      const answer = await run(async () => ({ task: await request() }))
      if (answer) dispatch({ type: 'confirmed', change, ...answer })
      else {
        dispatch({ type: 'refused', change })
        // The list may be out of date: the task may have been deleted.
        void load()
      }
      return answer !== undefined
    },
    [run, load]
  )

  const actions = useMemo(() => {
    const update = async (id: string, mine: Fields, etag: string) => {
      const attempt = async () => {
        try {
          return (await api.update(id, mine, etag)).data
        } catch (error) {
          if (!(error instanceof Refused) || error.status !== 412) throw error
          const now = await api.get(id)
          // The answer to an earlier attempt was lost, and the task already has the user's values.
          if (now.data.title === mine.title && now.data.description === mine.description) return now.data
          setConflict({ theirs: now.data, mine, etag: now.etag })
          return now.data
        }
      }
      await change({ kind: 'update', id, fields: mine }, attempt)
    }
    return {
      create: (title: string) => {
        const key = crypto.randomUUID()
        return change(
          { kind: 'create', task: draft(userId, key, title) },
          async () => (await api.create(title, key)).data
        )
      },
      complete: ({ id }: Task, completed: boolean) =>
        change(
          { kind: 'update', id, fields: { completed } },
          async () => (await api.complete(id, completed)).data
        ),
      remove: ({ id }: Task) =>
        change({ kind: 'delete', id }, async () => {
          await api.delete(id).catch((error) => {
            // Already deleted, by an attempt whose answer was lost, or by another tab.
            if (!(error instanceof Refused) || error.status !== 404) throw error
          })
          return undefined
        }),
      /** The current task and its version, for editing. */
      read: (id: string) => run(() => api.get(id)),
      update
    }
  }, [api, userId, change, run])

  useEffect(() => {
    const requests = new RequestQueue(setOutage)
    queue.current = requests
    const retryNow = () => requests.retryNow()
    let isLoading = false
    // The user returns from another tab, which may have changed something.
    const refresh = async () => {
      if (isLoading) return
      isLoading = true
      await load()
      isLoading = false
    }
    void refresh()
    window.addEventListener('focus', refresh)
    window.addEventListener('online', retryNow)
    return () => {
      requests.end()
      window.removeEventListener('focus', refresh)
      window.removeEventListener('online', retryNow)
    }
  }, [load])

  const pending = state.pending.length
  useEffect(() => {
    if (pending === 0) return
    const ask = (event: BeforeUnloadEvent) => event.preventDefault()
    window.addEventListener('beforeunload', ask)
    return () => window.removeEventListener('beforeunload', ask)
  }, [pending])

  return {
    tasks: useMemo(() => shown(state), [state]),
    pending,
    /** The ids of the tasks that the service has not created yet. */
    drafts: useMemo(
      () => new Set(state.pending.flatMap((change) => (change.kind === 'create' ? [change.task.id] : []))),
      [state]
    ),
    outage,
    problem,
    dismiss: () => setProblem(undefined),
    conflict,
    settle: () => setConflict(undefined),
    retryNow: () => queue.current?.retryNow(),
    ...actions
  }
}
