import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { emptyFolder, startProcess, until } from '../../support/process.js'
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
