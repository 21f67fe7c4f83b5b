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
