import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { DatabaseUnavailable } from '../../../db/errors.js'
import { openDatabase } from '../../../db/index.js'
import { migrate } from '../../../db/migrate.js'
import { taskRepository } from '../../../db/tasks.js'
import t, { type Test } from '../../support/tap.js'

const USER = 'alice'
const { fsyncSync } = fs

/** Replaces the system's fsync until the test ends. */
function replaceFsync(t: Test, fsync: typeof fsyncSync): void {
  const replace = (by: typeof fsyncSync) => {
    fs.fsyncSync = by
    syncBuiltinESMExports()
  }
  replace(fsync)
  t.teardown(() => replace(fsyncSync))
}

async function open(directory: string) {
  const db = await openDatabase({ kind: 'embedded', directory })
  await db.withAdminConnection(migrate)
  return { db, tasks: taskRepository(db) }
}

t.test('every write is on the disk before it is acknowledged, and a read waits for no fsync', async (t) => {
  let synced = 0
  replaceFsync(t, (file) => {
    fsyncSync(file)
    synced++
  })
  const directory = t.testdir()
  const { db, tasks } = await open(directory)
  t.ok(synced > 500, `a new database as a whole: ${synced} files`)
  let before = synced
  const { id } = await tasks.create(USER, { title: 'Buy milk' })
  for (const write of [
    () => tasks.update(USER, id, { title: 'Buy bread' }),
    () => tasks.toggle(USER, id),
    () => tasks.delete(USER, id)
  ]) {
    t.ok(synced > before)
    before = synced
    await write()
  }
  t.ok(synced > before)
  before = synced
  await tasks.list(USER)
  t.equal(synced, before)
  await db.close()

  before = synced
  const again = await open(directory)
  t.ok(synced - before < 100, `and not each time that it is opened: ${synced - before}`)
  await again.db.close()
})

t.test('a failed fsync is an error, and acknowledged tasks are there after a restart', async (t) => {
  let fails = false
  replaceFsync(t, (file) => {
    if (!fails) return fsyncSync(file)
    fails = false
    throw Object.assign(new Error('EIO: i/o error, fsync'), { code: 'EIO' })
  })
  const directory = t.testdir()
  const { db, tasks } = await open(directory)
  const { id } = await tasks.create(USER, { title: 'Buy milk' })
  fails = true
  await Promise.all(
    ['Buy bread', 'Buy apples'].map((title) => t.rejects(tasks.create(USER, { title }), DatabaseUnavailable))
  )
  t.equal(fails, false)
  // PGlite may have reported success for the failed one.
  await t.rejects(tasks.get(USER, id), DatabaseUnavailable)
  await t.rejects(tasks.create(USER, { title: 'Buy salt' }), DatabaseUnavailable)
  await db.close()

  const again = await open(directory)
  t.match(await again.tasks.get(USER, id), { title: 'Buy milk' })
  const titles = ((await again.tasks.list(USER)) as { title: string }[]).map(({ title }) => title)
  t.notOk(titles.includes('Buy apples'), 'a write behind a failure is not executed')
  t.match(await again.tasks.create(USER, { title: 'Sleep' }), { title: 'Sleep' })
  await again.db.close()
})
