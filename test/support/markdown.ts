import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './root.js'

export interface Block {
  language: string
  code: string
}

/** The fenced code blocks of a Markdown file. */
export function blocksOf(file: string): Block[] {
  const text = readFileSync(join(ROOT, file), 'utf8')
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language = '', code = '']) => ({
    language,
    code
  }))
}

/** The cells of a table in a Markdown file. The table's heading begins with these cells. */
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

/** The code spans in a table's cell. */
export const codeOf = (cell = '') => [...cell.matchAll(/`([^`]+)`/g)].map(([, code]) => code as string)
