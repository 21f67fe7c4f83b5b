import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { emptyFolder, startProcess, statusOf, until } from '../../support/process.js'
import { SECRET, sign } from '../../support/sign.js'
import t from '../../support/tap.js'

/** A new database uses about half of it. */
const SIZE_MIB = 100

/** Runs a command with a small file system mounted at the folder, in a mount namespace of its own. */
const withSmallDisk = (directory: string) => [
  'unshare',
  '--user',
  '--map-root-user',
  '--mount',
  'sh',
  '-c',
  `mount -t tmpfs -o size=${SIZE_MIB}m tmpfs "$0" && exec "$@"`,
  directory
]

const [command = '', ...args] = withSmallDisk('/tmp')
const skip =
  spawnSync(command, [...args, 'true']).status !== 0 && 'this system lets nobody mount a file system'

t.test('a full disk refuses only writes, and they succeed again when there is space', { skip }, async (t) => {
  const directory = emptyFolder(t)
  const service = await startProcess(
    t,
    { DATA_DIR: join(directory, 'data'), JWT_SECRET: SECRET },
    { within: withSmallDisk(directory) }
  )
  await service.ready()
  const url = `${service.api}/api/alice/tasks`
  const headers = {
    authorization: `Bearer ${await sign({ sub: 'alice' })}`,
    'content-type': 'application/json'
  }
  const acknowledged = new Set<string>()
  let refused = 0
  const create = async () => {
    // Random text cannot be compressed.
    const body = JSON.stringify({ title: 'Keep', description: randomBytes(6_000).toString('base64') })
    const response = await fetch(url, { method: 'POST', headers, body })
    const answer = (await response.json()) as { id: string }
    if (response.status === 201) acknowledged.add(answer.id)
    else {
      refused++
      t.match(answer, { status: 503, code: 'unavailable' })
    }
    return response.status
  }
  const allAreThere = async () => {
    const response = await fetch(url, { headers })
    t.equal(response.status, 200)
    const ids = new Set(((await response.json()) as { id: string }[]).map(({ id }) => id))
    t.strictSame(
      [...acknowledged].filter((id) => !ids.has(id)),
      []
    )
    t.ok(ids.size <= acknowledged.size + refused)
  }

  t.equal(await create(), 201)
  const filler = `/proc/${service.process.pid}/root${directory}/filler`
  t.equal(fill(filler), 'ENOSPC')
  while (refused < 3 && acknowledged.size < 1_000) await create()
  t.equal(refused, 3)
  await allAreThere()

  rmSync(filler)
  await until(async () => (await create()) === 201)
  t.equal(await create(), 201)
  await allAreThere()
  t.match(await service.stop(), { code: 0 })
})

t.test('without space for the log of changes, everything is refused until a restart', { skip }, async (t) => {
  const directory = emptyFolder(t)
  const filler = `${directory}/filler`
  // A second process follows when the first one has ended.
  const [, ...mounted] = withSmallDisk(directory)
  const twice = mounted.map((word) =>
    word.replace('exec "$@"', `{ setpriv --pdeathsig KILL "$@"; rm ${filler}; exec "$@"; }`)
  )
  const service = await startProcess(
    t,
    { DATA_DIR: join(directory, 'data'), JWT_SECRET: SECRET },
    { within: ['unshare', ...twice] }
  )
  await service.ready()
  const shell = service.process.pid as number
  const url = `${service.api}/api/alice/tasks`
  const headers = {
    authorization: `Bearer ${await sign({ sub: 'alice' })}`,
    'content-type': 'application/json'
  }
  const call = async (method: string, path = '', body?: object) => {
    const init = { method, headers, signal: AbortSignal.timeout(60_000) }
    const response = await fetch(url + path, { ...init, ...(body && { body: JSON.stringify(body) }) })
    return { status: response.status, json: (await response.json()) as { id: string; description: string } }
  }
  // So short that PostgreSQL replaces them within their pages. Then only the log grows.
  const description = () => randomBytes(1_300).toString('base64')
  const ids: string[] = []
  for (let n = 0; n < 12; n++) ids.push((await call('POST', '', { title: `${n}` })).json.id)

  /** The acknowledged descriptions. */
  const acknowledged = new Map<string, string>()
  const change = async (id: string) => {
    const text = description()
    const { status } = await call('PATCH', `/${id}`, { description: text })
    if (status === 200) acknowledged.set(id, text)
    else {
      acknowledged.delete(id)
      t.equal(status, 503)
    }
  }
  const changeAll = () => Promise.all(ids.map(change))
  for (let n = 0; n < 10; n++) await changeAll()
  t.equal(fill(`/proc/${shell}/root${filler}`), 'ENOSPC')
  for (let n = 0; n < 5_000 && !service.out().includes('pg_wal'); n++) await changeAll()
  t.equal((await call('GET')).status, 503)
  t.equal(await statusOf(`${service.ops}/ready`), 503)
  t.equal(await statusOf(`${service.ops}/live`), 200)
  t.match(service.out(), /pg_wal.* No space left on device/)

  const [first] = readFileSync(`/proc/${shell}/task/${shell}/children`, 'utf8').trim().split(' ')
  if (!first) throw new Error('the first process has ended')
  process.kill(Number(first), 'SIGTERM')
  await until(async () => (await statusOf(`${service.ops}/ready`)) === 200)
  for (const [id, text] of acknowledged) t.equal((await call('GET', `/${id}`)).json.description, text)
  const [changed = ''] = ids
  t.equal((await call('PATCH', `/${changed}`, { description: '' })).status, 200)
  t.match(await service.stop(), { code: 0 })
})

/** Fills the disk. Returns the code of the error at its end. */
function fill(file: string): string | undefined {
  const descriptor = openSync(file, 'w')
  let code: string | undefined
  for (const size of [2 ** 20, 2 ** 12]) {
    try {
      while (writeSync(descriptor, Buffer.alloc(size)) > 0);
    } catch (error) {
      code = (error as NodeJS.ErrnoException).code
    }
  }
  closeSync(descriptor)
  return code
}
