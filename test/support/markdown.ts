import { readFileSync } from 'node:fs'

export interface Block {
  language: string
  code: string
}

/** The fenced code blocks of a Markdown file, from the project's root. */
export function blocksOf(file: string): Block[] {
  const text = readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8')
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language = '', code = '']) => ({
    language,
    code
  }))
}
