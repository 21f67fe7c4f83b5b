import fp from 'fastify-plugin'
import type { Database, DatabaseConfig } from '../db/index.js'
import { openMigrated } from '../db/migrate.js'

declare module 'fastify' {
  interface FastifyInstance {
    db: Database
  }
}

/**
 * Decorates `app.db`. It is open and migrated when the app is ready, and closed after the last request.
 *
 * @throws StartError if the database cannot be used
 */
export default fp<{ database: DatabaseConfig }>(
  async (app, { database }) => {
    const db = await openMigrated(database)
    app.decorate('db', db)
    app.addHook('onClose', () => db.close())
  },
  { name: 'database' }
)
