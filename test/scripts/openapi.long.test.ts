import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { startApp } from '../support/api.js'
import { emptyFolder, runScript } from '../support/process.js'
import t from '../support/tap.js'

t.test('writes the document of the service, and no other file', async (t) => {
  const cwd = emptyFolder(t)
  const temporary = emptyFolder(t)
  const { code, out, err } = await runScript(cwd, 'openapi', { TMPDIR: temporary })
  t.strictSame({ code, out, err }, { code: 0, out: '', err: '' })
  t.strictSame(readdirSync(cwd), ['openapi.json'])
  t.strictSame(
    readdirSync(temporary).filter((name) => name.startsWith('tasks-')),
    []
  )
  const app = await startApp(t)
  t.equal(readFileSync(join(cwd, 'openapi.json'), 'utf8'), `${JSON.stringify(app.swagger(), null, 2)}\n`)
})
