import { execFile } from 'node:child_process'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { emptyFolder } from '../support/process.js'
import { ROOT } from '../support/root.js'
import t, { type Test } from '../support/tap.js'

// biome-ignore lint/suspicious/noExplicitAny: a test changes one thing in it.
type Document = any

const read = (file: string) => JSON.parse(readFileSync(join(ROOT, file), 'utf8'))

/** Runs `npm run openapi:breaking`. The released document is made from the committed one. */
async function compare(
  t: Test,
  change: (document: Document) => void
): Promise<{ code: number; out: string }> {
  const cwd = emptyFolder(t)
  const document = read('openapi.json')
  writeFileSync(join(cwd, 'openapi.released.json'), JSON.stringify(document))
  change(document)
  writeFileSync(join(cwd, 'openapi.json'), JSON.stringify(document))
  copyFileSync(join(ROOT, 'redocly.yaml'), join(cwd, 'redocly.yaml'))
  const env = { ...process.env, PATH: `${join(ROOT, 'node_modules/.bin')}:${process.env.PATH}` }
  try {
    const { stdout } = await promisify(execFile)(
      'sh',
      ['-c', read('package.json').scripts['openapi:breaking']],
      {
        cwd,
        env
      }
    )
    return { code: 0, out: stdout }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { code, out: stdout + stderr }
  }
}

const addField = ({ components }: Document) => {
  components.schemas.Task.properties.priority = { type: 'string', description: 'How urgent it is.' }
}
const requireDescription = ({ components }: Document) => {
  components.schemas.CreateTask.required.push('description')
}
const nextVersion = ({ info }: Document) => {
  const [major, minor] = info.version.split('.').map(Number)
  info.version = major === 0 ? `0.${minor + 1}.0` : `${major + 1}.0.0`
}

t.test('a new optional field breaks no client', async (t) => {
  t.match(await compare(t, addField), { code: 0 })
})

t.test('a new required field breaks clients, and is refused in the same version', async (t) => {
  const { code, out } = await compare(t, requireDescription)
  t.equal(code, 1)
  t.match(out, /description/)
  t.match(out, /info\.version stayed .* but these changes require/)
})

t.test('the next breaking version may break clients', async (t) => {
  const { code, out } = await compare(t, (document) => {
    requireDescription(document)
    nextVersion(document)
  })
  t.equal(code, 0, out)
})
