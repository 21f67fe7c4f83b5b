import { existsSync, readdirSync } from 'node:fs'
import type { Test } from './tap.js'

/** Debian's folder of PostgreSQL's newest version; undefined if it is not installed. */
export function postgresPrograms(): string | undefined {
  const root = '/usr/lib/postgresql'
  const [newest] = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : []
  return newest && `${root}/${newest}/bin`
}

/** PATH with the programs of PostgreSQL, which Debian leaves out. */
export const PROGRAMS = [postgresPrograms(), process.env.PATH, '/usr/sbin'].filter(Boolean).join(':')

/**
 * True if the machine has this program, which is in no npm package. Otherwise the test is skipped, but in CI it fails.
 */
export function hasProgram(t: Test, program: string, debianPackage: string): boolean {
  if (PROGRAMS.split(':').some((folder) => existsSync(`${folder}/${program}`))) return true
  const message = `${program} is not installed: apt-get install ${debianPackage}`
  if (process.env.CI) t.fail(message)
  else t.plan(0, message)
  return false
}
