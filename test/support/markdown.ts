import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './root.js'

export interface Block {
  language: string
  code: string
}

/** The fenced code blocks of a Markdown file, from the project's root. */
export function blocksOf(file: string): Block[] {
  const text = readFileSync(join(ROOT, file), 'utf8')
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language = '', code = '']) => ({
    language,
    code
  }))
}

/** The cells of the rows of the table whose heading begins with these, from a Markdown file in the project's root. */
export function rowsOf(file: string, heading: string[]): string[][] {
  const text = readFileSync(join(ROOT, file), 'utf8')
  const [, after] = text.split(`\n| ${heading.join(' | ')} |\n`)
  const [table = ''] = (after ?? '').split('\n\n')
  return table
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((row) => row.slice(2, -2).split(' | '))
}

/** What a table's cell shows as code. */
export const codeOf = (cell = '') => [...cell.matchAll(/`([^`]+)`/g)].map(([, code]) => code as string)
