import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SECRET } from '../support/api.js'
import { emptyDatabase } from '../support/databases.js'
import { aliceAt, emptyFolder, startProcess } from '../support/process.js'
import { ROOT } from '../support/root.js'
import t from '../support/tap.js'

t.test('the built tree serves from any folder, without the sources or a TypeScript loader', async (t) => {
  const app = join(emptyFolder(t), 'app')
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc')
  execFileSync(process.execPath, [tsc, '-b', 'tsconfig.build.json'], { cwd: ROOT })
  // The files in an image.
  for (const path of ['dist', 'package.json', 'db/migrations']) {
    cpSync(join(ROOT, path), join(app, path), { recursive: true })
  }
  symlinkSync(join(ROOT, 'node_modules'), join(app, 'node_modules'))
  const env = { JWT_SECRET: SECRET, DATABASE_URL: await emptyDatabase(t) }
  const service = await startProcess(t, env, { file: join(app, 'dist/src/server.js') })
  await service.ready()
  t.equal((await (await aliceAt(service))('POST', '', { title: 'Buy milk' })).status, 201)
  t.match(await (await (await aliceAt(service))('GET')).json(), [{ title: 'Buy milk' }])
  t.equal((await service.stop()).code, 0)
})

t.test('npm start without the compiler, as after npm ci with NODE_ENV=production', async (t) => {
  const app = join(emptyFolder(t), 'app')
  for (const path of ['package.json', 'scripts/prestart.mjs']) cpSync(join(ROOT, path), join(app, path))
  const start = () => {
    const { status, stdout, stderr } = spawnSync('npm', ['-s', 'start'], { cwd: app, encoding: 'utf8' })
    return { status, stdout, stderr }
  }
  t.strictSame(start(), {
    status: 1,
    stdout: '',
    stderr:
      'The service is not built, and the compiler is not installed: npm leaves it out when NODE_ENV is production. ' +
      'Run: npm ci --include=dev && npm start\n'
  })
  mkdirSync(join(app, 'dist/src'), { recursive: true })
  writeFileSync(join(app, 'dist/src/server.js'), "console.log('started')")
  t.strictSame(start(), { status: 0, stdout: 'started\n', stderr: '' }, 'starts what was built before')
})
