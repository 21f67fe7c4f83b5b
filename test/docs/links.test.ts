import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ROOT } from '../support/root.js'
import t from '../support/tap.js'

/** Makes an anchor as GitHub does. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[`*]|\]\([^)]*\)|\[/g, '')
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(/\s/g, '-')

const pages = execFileSync('git', ['ls-files', '*.md'], { cwd: ROOT, encoding: 'utf8' }).trim().split('\n')
const textOf = (page: string) => readFileSync(join(ROOT, page), 'utf8').replaceAll(/```.*?```/gs, '')

t.test('every link to a page or a heading has a target', async (t) => {
  for (const page of pages) {
    for (const [, link = ''] of textOf(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link)) continue
      const [path, anchor] = link.split('#') as [string, string?]
      const target = path === '' ? page : join(dirname(page), path)
      t.ok(existsSync(join(ROOT, target)), `${page}: ${link}`)
      if (anchor === undefined || !target.endsWith('.md')) continue
      const anchors = [...textOf(target).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
        anchorOf(heading as string)
      )
      t.ok(anchors.includes(anchor), `${page}: ${link}`)
    }
  }
})

/** The kinds of pages: the heading in the README's index, and the first word of a page. */
const KINDS = {
  Tutorials: 'Tutorial',
  'How-to guides': 'How-to',
  Reference: 'Reference',
  Explanation: 'Explanation'
}

/** All pages but the index itself, the changelog, GitHub's forms, and the records that docs/decisions/README.md lists. */
const isGuide = (page: string) => !/^(README|CHANGELOG|\.github\/.*)\.md$|\/\d+-[^/]*$/.test(page)

t.test('the index has each guide once, under the kind that the guide begins with', async (t) => {
  const [, index = ''] = textOf('README.md').split('\n## Documentation')
  const indexed = index.split('\n\n**').flatMap((section) => {
    const kind = KINDS[section.split('**')[0] as keyof typeof KINDS]
    const links = [...section.matchAll(/\]\(([^)]*\.md)\)/g)].map(([, page]) => page as string)
    return links.filter(isGuide).map((page) => `${kind}: ${page}`)
  })
  const guides = pages.filter(isGuide)
  const begun = guides.map((page) => {
    const [, kind] = /^# (?:.*\n\n)?(Tutorial|How-to|Reference|Explanation)[.,:]/.exec(textOf(page)) ?? []
    return `${kind}: ${page}`
  })
  t.strictSame(indexed.sort(), begun.sort())
})
