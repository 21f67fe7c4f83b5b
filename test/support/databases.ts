import { randomUUID } from 'node:crypto'
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
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
export const migratedDatabase = (t: Pick<Test, 'teardown'>, transport: Transport = 'tls') =>
  createDatabase(t, prepared().postgres.migrated, transport)

/** Creates and drops this process's databases. It disconnects when idle, so that the process can end. */
let admin: postgres.Sql | undefined

async function createDatabase(
  t: Pick<Test, 'teardown'>,
  template: string,
  transport: Transport
): Promise<string> {
  const name = `test_${randomUUID().replaceAll('-', '')}`
  admin ??= postgres(serverUrl('postgres'), { max: 1, idle_timeout: 1, onnotice: () => {} })
  const { unsafe } = admin
  // A third of the time of the default strategy, which writes the template to the WAL.
  await unsafe(`create database ${name} template ${template} strategy file_copy`)
  t.teardown(() => unsafe(`drop database if exists ${name} with (force)`))
  return urlOver(transport, serverUrl(name))
}

/** This process's folders for embedded databases, and those that no test uses now. */
const folders: string[] = []
const freeFolders: string[] = []
process.once('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tasks-embedded-'))
  folders.push(folder)
  return folder
}

/**
 * Makes a folder equal to another one. A database has a thousand files, and a test changes few of them. So only files of
 * another size or time are copied.
 */
function restore(folder: string, original: string): void {
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!existsSync(join(original, name))) rmSync(join(folder, name), { recursive: true, force: true })
  }
  const filter = (source: string, target: string) => {
    const is = statSync(target, { throwIfNoEntry: false })
    const should = statSync(source)
    return should.isDirectory() || is?.size !== should.size || is.mtimeMs !== should.mtimeMs
  }
  cpSync(original, folder, { recursive: true, preserveTimestamps: true, filter })
}

/** Environment variables for a migrated database of this kind without tasks. It is dropped with the test. */
export async function databaseEnv(t: Test, kind: DatabaseKind): Promise<Record<string, string>> {
  if (kind === 'postgres') return { DATABASE_URL: await migratedDatabase(t) }
  const directory = freeFolders.pop() ?? newFolder()
  restore(directory, prepared().embedded)
  t.teardown(() => void freeFolders.push(directory))
  return { DATA_DIR: directory }
}
