import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './support/root.js'
import t from './support/tap.js'

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const { version } = JSON.parse(read('package.json'))
const [newest, ...others] = [...read('CHANGELOG.md').matchAll(/^## (.+)$/gm)].map(([, title]) => title)

t.test('lock file, OpenAPI document, manifests and changelog have the version of package.json', async (t) => {
  t.equal(JSON.parse(read('package-lock.json')).version, version)
  t.equal(JSON.parse(read('openapi.json')).info.version, version)
  for (const file of ['deployment.yaml', 'migrate.yaml']) {
    t.match(read(`deploy/kubernetes/${file}`), `image: tasks-api:${version}\n`, file)
  }
  const titles = newest === 'Unreleased' ? others : [newest, ...others]
  t.match(titles[0], new RegExp(`^${version.replaceAll('.', '\\.')} \\(\\d{4}-\\d\\d-\\d\\d\\)$`))
})

t.test('a commit with the tag of a version is released as that version', async (t) => {
  const tags = execFileSync('git', ['tag', '--points-at', 'HEAD', '--list', 'v*'], {
    cwd: ROOT,
    encoding: 'utf8'
  })
  if (tags === '') return t.pass('this commit is not a release')
  t.equal(tags, `v${version}\n`)
  t.not(newest, 'Unreleased')
  t.equal(read('openapi.released.json'), read('openapi.json'))
})
