import { randomUUID } from 'node:crypto'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import type { DatabaseConfig } from '../../db/index.js'
import { prepared } from './prepared.js'
import type { Test } from './tap.js'

export type DatabaseKind = DatabaseConfig['kind']
export const KINDS: DatabaseKind[] = ['postgres', 'embedded']

/** The transport between a service and its PostgreSQL server. */
export type Transport = 'plain' | 'tls'
export const TRANSPORTS: Transport[] = ['plain', 'tls']

/** The URL of a database on the run's server. */
const serverUrl = (database: string) =>
  `postgres://postgres@127.0.0.1:${prepared().postgres.port}/${database}?sslmode=disable`

/** The URL for this transport. With TLS the server's certificate is not checked. */
export function urlOver(transport: Transport, url: string): string {
  return `${url.split('?')[0]}?sslmode=${transport === 'plain' ? 'disable' : 'require'}`
}

/** The file with the certificate of the authority of the run's server. */
export const authorityFile = () => prepared().postgres.authority

/** A client for a test's own statements. It ends with the test. */
export function sqlClient(t: Pick<Test, 'teardown'>, url: string): postgres.Sql {
  const [plain] = url.split('?') as [string]
  const sql = postgres(plain, { max: 2, onnotice: () => {} })
  t.teardown(() => sql.end({ timeout: 1 }))
  return sql
}

/** Creates an empty database, and drops it with the test. The URL uses TLS, like most users'. */
export const emptyDatabase = (t: Test, transport: Transport = 'tls') =>
  createDatabase(t, 'template1', transport)

/** Creates a migrated database without tasks, and drops it with the test. */
export const migratedDatabase = (t: Pick<Test, 'teardown'>) =>
  createDatabase(t, prepared().postgres.migrated, 'tls')

async function createDatabase(
  t: Pick<Test, 'teardown'>,
  template: string,
  transport: Transport
): Promise<string> {
  const name = `test_${randomUUID().replaceAll('-', '')}`
  const admin = postgres(serverUrl('postgres'), { max: 1, onnotice: () => {} })
  await admin.unsafe(`create database ${name} template ${template}`)
  t.teardown(async () => {
    await admin.unsafe(`drop database if exists ${name} with (force)`)
    await admin.end({ timeout: 1 })
  })
  return urlOver(transport, serverUrl(name))
}

/** Environment variables for a migrated database of this kind without tasks. It is dropped with the test. */
export async function databaseEnv(t: Test, kind: DatabaseKind): Promise<Record<string, string>> {
  if (kind === 'postgres') return { DATABASE_URL: await migratedDatabase(t) }
  const directory = t.testdir()
  cpSync(prepared().embedded, join(directory, 'postgres'), { recursive: true })
  return { DATA_DIR: directory }
}
