import { PGlite } from '@electric-sql/pglite'
import { PostgresDialect } from 'kysely'

/**
 * A PostgreSQL embedded in this process, in the shape of a `Pool` of the package `pg`. With a PostgreSQL server, the
 * whole file becomes `new Pool({ connectionString })`.
 *
 * @param {string} directory
 */
export async function openDatabase(directory) {
  const database = await PGlite.create(directory)
  /** @type {any} */
  const query = async (/** @type {string} */ sql, /** @type {any[]} */ parameters) => {
    const { rows, affectedRows } = await database.query(sql, parameters)
    return { rows, rowCount: affectedRows ?? 0, command: sql.trimStart().split(' ', 1)[0]?.toUpperCase() }
  }
  // There is one connection: whoever wants it waits until the one before has released it.
  let released = Promise.resolve()
  const pool = {
    async connect() {
      const before = released
      let release = () => {}
      released = new Promise((resolve) => {
        release = resolve
      })
      await before
      return { query, release }
    },
    end: () => database.close()
  }
  return { dialect: new PostgresDialect({ pool }), close: () => database.close() }
}
