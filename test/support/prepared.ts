import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './root.js'

/** Prepared by test/run.ts for all files of a run, which read it from their environment. */
export interface Prepared {
  postgres: {
    port: number
    authority: string
    /** A migrated database without tasks, used as a template. */
    migrated: string
  }
  /** A DATA_DIR with a migrated database without tasks, which tests copy. */
  embedded: string
}

export const prepared = (): Prepared => JSON.parse(process.env.TEST_PREPARED as string)

/**
 * Creates the embedded database that tests copy. That takes seconds, so later runs use it until a package or a
 * migration changes.
 */
export async function prepareEmbedded(): Promise<string> {
  const hash = createHash('sha256')
  const migrations = readdirSync(join(ROOT, 'db', 'migrations')).filter((name) => name.endsWith('.sql'))
  for (const file of ['package-lock.json', ...migrations.map((name) => join('db', 'migrations', name))]) {
    hash.update(readFileSync(join(ROOT, file)))
  }
  const folder = join(ROOT, 'dist-test', `data-${hash.digest('hex').slice(0, 8)}`)
  if (existsSync(folder)) return folder

  // Another run may do the same at this time, so the folder is renamed when it is complete.
  const { openMigrated } = await import('../../db/migrate.js')
  const draft = `${folder}.${process.pid}`
  const database = await openMigrated({ kind: 'embedded', directory: join(draft, 'postgres') })
  await database.close()
  try {
    renameSync(draft, folder)
  } catch (error) {
    if (!existsSync(folder)) throw error
    rmSync(draft, { recursive: true })
  }
  return folder
}
