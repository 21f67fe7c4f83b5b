import { existsSync, readdirSync } from 'node:fs'
import type { Test } from './tap.js'

/** Where Debian keeps the programs of PostgreSQL's newest version; undefined when there are none. */
export function postgresPrograms(): string | undefined {
  const root = '/usr/lib/postgresql'
  const [newest] = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : []
  return newest && `${root}/${newest}/bin`
}

/** The folders in which programs are looked for, with those of PostgreSQL that Debian leaves out of `PATH`. */
export const PROGRAMS = [postgresPrograms(), process.env.PATH, '/usr/sbin'].filter(Boolean).join(':')

/**
 * Whether the machine has a program that no npm package brings. If not, the test is skipped; in CI, which installs it,
 * the test fails.
 */
export function hasProgram(t: Test, program: string, debianPackage: string): boolean {
  if (PROGRAMS.split(':').some((folder) => existsSync(`${folder}/${program}`))) return true
  const message = `${program} is not installed: apt-get install ${debianPackage}`
  if (process.env.CI) t.fail(message)
  else t.plan(0, message)
  return false
}
