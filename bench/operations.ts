import { CREATED_TITLE, RENAMED_TITLE, TASKS_PER_USER, taskId, type User, type Users } from './dataset.js'

/** A request in autocannon's form. */
export interface Request {
  method: 'GET' | 'POST' | 'PATCH'
  path: string
  headers: Record<string, string>
  body?: string
  /** True counts its latency separately. */
  slow?: boolean
}

export interface Operation {
  label: string
  /** The expected statuses. */
  statuses: number[]
  writes: boolean
  /** A random request: any user, any task. */
  request(users: Users): Request
}

export type OperationName = keyof typeof operations

export const random = (below: number) => Math.floor(Math.random() * below)
const anyOf = <T>(items: T[]) => items[random(items.length)] as T

const path = ({ id }: User) => `/api/${id}/tasks`
const anyTask = (user: User) => `${path(user)}/${taskId(user.number, random(TASKS_PER_USER))}`
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const json = (user: User, body: object) => ({
  headers: { ...bearer(user.token), 'content-type': 'application/json' },
  body: JSON.stringify(body)
})

function get({ readers }: Users): Request {
  const user = anyOf(readers)
  return { method: 'GET', path: anyTask(user), headers: bearer(user.token) }
}

function list({ readers }: Users): Request {
  const user = anyOf(readers)
  return { method: 'GET', path: path(user), headers: bearer(user.token) }
}

function create({ creators }: Users): Request {
  const user = anyOf(creators)
  const task = { title: CREATED_TITLE, description: 'It is removed when the measurement is over.' }
  return { method: 'POST', path: path(user), ...json(user, task) }
}

function update({ readers }: Users): Request {
  const user = anyOf(readers)
  const changes = { title: `${RENAMED_TITLE} ${random(1_000)}`, completed: Math.random() < 0.5 }
  return { method: 'PATCH', path: anyTask(user), ...json(user, changes) }
}

function toggle({ readers }: Users): Request {
  const user = anyOf(readers)
  return { method: 'PATCH', path: `${anyTask(user)}/complete`, headers: bearer(user.token) }
}

/** Shares of the mix in per cent: 80 % reads, 20 % writes. */
const MIX = { get: 60, list: 20, create: 6, update: 7, toggle: 7 }

function mix(users: Users): Request {
  let left = Math.random() * 100
  for (const [name, share] of Object.entries(MIX)) {
    left -= share
    if (left < 0) return operations[name as keyof typeof MIX].request(users)
  }
  return get(users)
}

function refused({ readers }: Users): Request {
  const user = anyOf(readers)
  return { method: 'GET', path: anyTask(user), headers: bearer(user.refusedToken) }
}

export const operations = {
  get: { label: 'get one task', statuses: [200], writes: false, request: get },
  list: { label: `list of ${TASKS_PER_USER}`, statuses: [200], writes: false, request: list },
  create: { label: 'create', statuses: [201], writes: true, request: create },
  update: { label: 'update', statuses: [200], writes: true, request: update },
  toggle: { label: 'toggle', statuses: [200], writes: true, request: toggle },
  mix: { label: 'mix of 80 % reads, 20 % writes', statuses: [200, 201], writes: true, request: mix },
  refused: { label: 'refused token', statuses: [401], writes: false, request: refused }
} satisfies Record<string, Operation>
