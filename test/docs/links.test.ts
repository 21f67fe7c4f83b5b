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
