import { randomUUID } from 'node:crypto'
import { cpSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import type { Test } from 'tap'
import type { DatabaseConfig } from '../../src/config.js'
import { EMBEDDED, SERVER } from './state.js'

export type DatabaseKind = DatabaseConfig['kind']
export const KINDS: DatabaseKind[] = ['postgres', 'embedded']

/** The URL of a database on the test run's server. */
function serverUrl(database: string): string {
  const { port } = JSON.parse(readFileSync(SERVER, 'utf8'))
  return `postgres://postgres@127.0.0.1:${port}/${database}`
}

/** A client for whatever a test wants to see or do behind the service's back; ends with the test. */
export function sqlClient(t: Pick<Test, 'teardown'>, url: string): postgres.Sql {
  const sql = postgres(url, { max: 2, onnotice: () => {} })
  t.teardown(() => sql.end({ timeout: 1 }))
  return sql
}

/** The URL of a new, empty database, which ends with the test. */
export async function emptyDatabase(t: Test): Promise<string> {
  const name = `test_${randomUUID().replaceAll('-', '')}`
  const admin = postgres(serverUrl('postgres'), { max: 1, onnotice: () => {} })
  await admin.unsafe(`create database ${name}`)
  t.teardown(async () => {
    await admin.unsafe(`drop database if exists ${name} with (force)`)
    await admin.end({ timeout: 1 })
  })
  return serverUrl(name)
}

/** Environment variables that name a new, empty database of the given kind, which ends with the test. */
export async function databaseEnv(t: Test, kind: DatabaseKind): Promise<Record<string, string>> {
  if (kind === 'postgres') return { DATABASE_URL: await emptyDatabase(t) }
  const directory = t.testdir()
  cpSync(EMBEDDED, join(directory, 'postgres', 'pgdata'), { recursive: true })
  return { DATA_DIR: directory }
}
