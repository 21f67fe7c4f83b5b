import fp from 'fastify-plugin'
import { causeOf, type Database, openDatabase } from '../db/client.js'
import { migrate } from '../db/migrate.js'
import type { DatabaseConfig } from '../src/config.js'
import { StartError } from '../src/errors.js'

declare module 'fastify' {
  interface FastifyInstance {
    db: Database
  }
}

/** How long the start waits for the database before it gives up. */
const START_MS = 10_000

/**
 * Decorates `app.db`: opened and brought up to date before the app is ready, closed after the last request.
 *
 * @throws StartError at start when the database cannot be used
 */
export default fp<{ database: DatabaseConfig }>(
  async (app, { database }) => {
    const db = await openDatabase(database)
    app.decorate('db', db)
    app.addHook('onClose', () => db.close())
    try {
      await db.ping(START_MS)
      await db.administer(migrate)
    } catch (error) {
      if (error instanceof StartError) throw error
      const { name, message } = causeOf(error) as Error
      throw new StartError(`DATABASE_URL: the database cannot be used: ${name}: ${message}`)
    }
  },
  { name: 'database' }
)
