import { type MarkedToken, marked, type Token } from 'marked'

export interface Sentence {
  line: number
  text: string
}

/** The sentences of a file in the repository: of a page, or of the comments and test titles of code. */
export function sentencesOf(file: string, text: string): Sentence[] {
  if (file.endsWith('.md')) return sentencesOfMarkdown(text)
  const parts = /\.([mj]?[jt]sx?|css)$/.test(file)
    ? [
        ...blockComments(text),
        ...lineComments(text, /(?:^|\s)\/\/ (?!biome-ignore)(.*)/),
        ...testTitles(text)
      ]
    : lineComments(text, /^\s*(?:#|--) (.*)/)
  return parts.sort((a, b) => a.line - b.line).flatMap(({ line, text }) => sentencesOfMarkdown(text, line))
}

/** @param firstLine of the text in its file */
function sentencesOfMarkdown(text: string, firstLine = 1): Sentence[] {
  const sentences: Sentence[] = []
  let position = 0
  const add = (raw: string, tokens: Token[] | undefined) => {
    position = Math.max(position, text.indexOf(raw.split('\n', 1)[0] as string, position))
    const line = firstLine + text.slice(0, position).split('\n').length - 1
    for (const sentence of plain(tokens).split(/(?<=[.?!:;]["”’)]*)\s+(?=["“‘(]*[A-Z\d])/)) {
      sentences.push({ line, text: sentence.replaceAll(/\s+/g, ' ').trim() })
    }
  }
  const addBlocks = (tokens: Token[]) => {
    for (const token of tokens as MarkedToken[]) {
      if (token.type === 'table') {
        for (const cell of [token.header, ...token.rows].flat()) add(cell.text, cell.tokens)
      } else if (token.type === 'list') {
        for (const item of token.items) addBlocks(item.tokens)
      } else if (token.type === 'blockquote') addBlocks(token.tokens)
      else if (token.type === 'paragraph' || token.type === 'heading' || token.type === 'text') {
        add(token.text, token.tokens)
      }
    }
  }
  addBlocks(marked.lexer(text))
  return sentences
}

/** Code spans are no prose: each counts as one word. */
function plain(tokens: Token[] = []): string {
  return (tokens as MarkedToken[])
    .map((token) => {
      if (token.type === 'codespan') return 'CODE'
      if (token.type === 'html') return ' '
      if ('tokens' in token && token.tokens) return plain(token.tokens)
      return 'text' in token ? token.text : ' '
    })
    .join('')
}

const lineAt = (text: string, position: number) => text.slice(0, position).split('\n').length

/** Each tag of a JSDoc comment is a part. */
function blockComments(text: string): Sentence[] {
  return [...text.matchAll(/^\s*\/\*\*?(.*?)\*\//gms)].flatMap(({ index, 0: { length }, 1: body = '' }) => {
    let line = lineAt(text, index + length) - body.split('\n').length + 1
    return body
      .replaceAll(/^[ *]+/gm, '')
      .split(/^(?=@)/m)
      .map((part) => {
        const found = { line, text: part.replace(/^@(param \S+|\w+) /, '') }
        line += part.split('\n').length - 1
        return found
      })
  })
}

/** Adjacent lines are one comment. */
function lineComments(text: string, pattern: RegExp): Sentence[] {
  const comments: Sentence[] = []
  for (const [index, line] of text.split('\n').entries()) {
    const comment = pattern.exec(line)?.[1]
    const last = comments.at(-1)
    if (comment === undefined) continue
    if (last && last.line + last.text.split('\n').length === index + 1) last.text += `\n${comment}`
    else comments.push({ line: index + 1, text: comment })
  }
  return comments
}

function testTitles(text: string): Sentence[] {
  return [...text.matchAll(/\.test\(\s*(['"`])(.*?)\1/g)].map((match) => ({
    line: lineAt(text, match.index + match[0].length),
    text: match[2] as string
  }))
}
