import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { Marked } from 'marked'
import { htmlPage } from './page.js'

const ROOT = dirname(createRequire(import.meta.url).resolve('#package.json'))

/** Only these files of the project are served. */
const GUIDE =
  /^((README|CHANGELOG|SECURITY|ARCHITECTURE|CONTRIBUTING)\.md|docs\/(decisions\/)?[\w-]+\.(md|svg)|examples\/[\w-]+\/README\.md)$/

/** The guides may be missing from a deployment. */
export const hasGuides = existsSync(join(ROOT, 'README.md'))

/** Serves the guides at their paths in the project, so that their links work. */
export default async function guides(app: FastifyInstance): Promise<void> {
  app.get<{ Params: { '*': string } }>('/*', async (request, reply) => {
    const name = request.params['*']
    const file = GUIDE.test(name)
      ? await readFile(join(ROOT, name), 'utf8').catch(() => undefined)
      : undefined
    if (file === undefined) return reply.callNotFound()
    if (name.endsWith('.svg')) return reply.type('image/svg+xml').send(file)
    return reply.type('text/html; charset=utf-8').send(guideHtml(name, file))
  })

  app.get('/guides.css', async (_request, reply) => reply.type('text/css; charset=utf-8').send(GUIDES_CSS))
}

function guideHtml(name: string, markdown: string): string {
  const base = '../'.repeat(name.split('/').length - 1)
  const marked = new Marked({
    renderer: {
      // Links between the guides use the ids that GitHub makes from headings.
      heading({ tokens, depth, text }) {
        const id = text
          .toLowerCase()
          .replace(/[^\p{L}\p{N} _-]/gu, '')
          .replaceAll(' ', '-')
        return `<h${depth} id="${id}">${this.parser.parseInline(tokens)}</h${depth}>\n`
      },
      // The sources are not served, so a link to one becomes plain text.
      link({ href, tokens }) {
        const { origin, pathname } = new URL(href, `http://guides/${name}`)
        return origin === 'http://guides' && !GUIDE.test(pathname.slice(1))
          ? this.parser.parseInline(tokens)
          : false
      }
    }
  })
  return htmlPage(
    `${name} · Tasks API`,
    `<link rel="stylesheet" href="${base}guides.css">`,
    `<nav><a href="${base}../">API reference</a><a href="${base}README.md">Guides</a></nav>
<main>
${marked.parse(markdown, { async: false })}</main>`
  )
}

const GUIDES_CSS = `:root { color-scheme: light dark; }
body { max-width: 50rem; margin: 0 auto; padding: 1rem 1.25rem 3rem; font: 1rem/1.6 system-ui, sans-serif; overflow-wrap: break-word; }
nav { display: flex; gap: 1.5rem; }
h1, h2, h3 { line-height: 1.25; }
pre, code { font-family: ui-monospace, monospace; font-size: 0.9em; }
pre { overflow-x: auto; padding: 0.75rem 1rem; border: 1px solid #8885; border-radius: 6px; }
table { display: block; overflow-x: auto; border-collapse: collapse; }
th, td { padding: 0.35rem 0.75rem; border: 1px solid #8885; text-align: left; vertical-align: top; }
img { max-width: 100%; }
`
