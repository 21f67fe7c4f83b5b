import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './root.js'

/** What test/run.ts prepares for all files of a run, which find it in their environment. */
export interface Prepared {
  postgres: {
    port: number
    authority: string
    /** A database that is migrated and has no tasks, to be a template. */
    migrated: string
  }
  /** The folder of an embedded database that is migrated and has no tasks, to be copied. */
  embedded: string
}

export const prepared = (): Prepared => JSON.parse(process.env.TEST_PREPARED as string)

/**
 * Makes the embedded database that tests copy, and returns its folder. That takes seconds, so the folder is kept for
 * later runs until a package or a migration changes.
 */
export async function prepareEmbedded(): Promise<string> {
  const hash = createHash('sha256')
  const migrations = readdirSync(join(ROOT, 'db', 'migrations')).filter((name) => name.endsWith('.sql'))
  for (const file of ['package-lock.json', ...migrations.map((name) => join('db', 'migrations', name))]) {
    hash.update(readFileSync(join(ROOT, file)))
  }
  const folder = join(ROOT, 'dist-test', `embedded-${hash.digest('hex').slice(0, 8)}`)
  if (existsSync(folder)) return folder

  // Another run may do the same at this moment: the folder gets its name when it is complete.
  const { openMigrated } = await import('../../db/migrate.js')
  const draft = `${folder}.${process.pid}`
  const database = await openMigrated({ kind: 'embedded', directory: draft })
  await database.close()
  try {
    renameSync(draft, folder)
  } catch (error) {
    if (!existsSync(folder)) throw error
    rmSync(draft, { recursive: true })
  }
  return folder
}
