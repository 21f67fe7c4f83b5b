import type { Task } from '../../db/schema.js'
import { sign } from '../support/api.js'
import { UNKNOWN_ID } from '../support/refusals.js'
import type { Draft } from './drafts.js'
import type { Sent } from './sent.js'

/** The ids of users, some of which are difficult for other services. */
const NAMES = ['alice', 'ü/💡', 'a%2fb', '__proto__', "o'hara; drop table tasks; --", '€'.repeat(255)]

/** A task, and the client's knowledge about it. */
export interface Known {
  task: Task
  version: number
  /** The Idempotency-Key and the body of its creation. */
  key: string | undefined
  meaning: string
}

export interface User {
  name: string
  token: string
  /** Tokens that are not valid for her. */
  expired: string
  forged: string
  /** Newest first, like lists. */
  tasks: Known[]
}

export function makeUsers(): Promise<User[]> {
  return Promise.all(
    NAMES.map(async (name) => ({
      name,
      token: await sign({ sub: name }),
      expired: await sign({ sub: name, exp: 1 }),
      forged: await sign({ sub: name }, 'x'.repeat(64)),
      tasks: []
    }))
  )
}

/** A draft in one world: the request, the user in its path, and the task at that path. */
export interface Concrete {
  sent: Sent
  user: User
  known: Known | undefined
}

export function concrete(draft: Draft, users: User[]): Concrete {
  const user = users[draft.user % users.length] as User
  const stranger = users[(draft.user + 1) % users.length] as User
  const id = idOf(draft.task, user.tasks, stranger.tasks)
  // A UUID in upper case is the same id.
  const known = user.tasks.find(({ task }) => task.id === id.toLowerCase())

  const { method, noise, caller, body, condition, key } = draft
  const headers: Sent['headers'] = [...noise]
  const token = {
    owner: user.token,
    stranger: stranger.token,
    none: undefined,
    garbage: 'garbage',
    expired: user.expired,
    forged: user.forged
  }[caller]
  if (token !== undefined) headers.push(['Authorization', `Bearer ${token}`])
  if (condition) headers.push([condition.header, fieldOf(condition.value, known?.version ?? 1)])
  if (key !== undefined) headers.push(['Idempotency-Key', key])
  if (body?.type !== undefined) headers.push(['Content-Type', body.type])
  const target = targetOf(draft, user.name, id)
  return { user, known, sent: { method, target, headers, body: body?.bytes, chunks: body?.chunks } }
}

function targetOf({ path, encodeAll, slash, query }: Draft, user: string, id: string): string {
  const pairs = query.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
  const search = pairs.length > 0 ? `?${pairs.join('&')}` : ''
  if ('text' in path) return path.text + search
  const encode = encodeAll ? percentEncode : encodeURIComponent
  const text = path.template.replace('{userId}', () => encode(user)).replace('{taskId}', () => encode(id))
  return text + (slash ? '/' : '') + search
}

function idOf(task: Draft['task'], own: Known[], foreign: Known[]): string {
  if ('text' in task) return task.text
  if ('foreign' in task) return foreign[task.foreign % foreign.length]?.task.id ?? UNKNOWN_ID
  const id = own[task.own % own.length]?.task.id ?? UNKNOWN_ID
  return task.upper ? id.toUpperCase() : id
}

const percentEncode = (text: string) => Buffer.from(text).toString('hex').replace(/../g, '%$&')

function fieldOf(value: NonNullable<Draft['condition']>['value'], version: number): string {
  if (value === '*') return '*'
  if (!Array.isArray(value)) return value.text
  const tags = {
    current: `"${version}"`,
    'weak current': `W/"${version}"`,
    'encoded current': `"${version}-gzip"`,
    next: `"${version + 1}"`,
    previous: `"${version - 1}"`,
    other: '"x"'
  }
  return value.map((tag) => tags[tag]).join(', ')
}
