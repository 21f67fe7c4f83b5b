import fp from 'fastify-plugin'
import type { Database, DatabaseConfig } from '../db/index.js'
import { openMigrated } from '../db/migrate.js'

declare module 'fastify' {
  interface FastifyInstance {
    db: Database
  }
}

/**
 * Decorates `app.db`: opened and brought up to date before the app is ready, closed after the last request.
 *
 * @throws StartError at start when the database cannot be used
 */
export default fp<{ database: DatabaseConfig }>(
  async (app, { database }) => {
    const db = await openMigrated(database)
    app.decorate('db', db)
    app.addHook('onClose', () => db.close())
  },
  { name: 'database' }
)
