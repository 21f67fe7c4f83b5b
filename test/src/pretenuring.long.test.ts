import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SECRET } from '../support/api.js'
import { databaseEnv } from '../support/databases.js'
import { aliceAt, emptyFolder, startProcess } from '../support/process.js'
import t from '../support/tap.js'

t.test('V8 does not choose literals whose objects it allocates among the old ones', async (t) => {
  const cwd = emptyFolder(t)
  const hook = join(cwd, 'hook.cjs')
  // From the first request on, V8 prints a line for each garbage collection in which it counted objects of literals.
  writeFileSync(
    hook,
    `require('node:diagnostics_channel').subscribe('http.server.request.start', () => {
      const { setFlagsFromString } = require('node:v8')
      setFlagsFromString('--trace-pretenuring-statistics')
      setFlagsFromString('--expose-gc')
      require('node:vm').runInNewContext('gc')({ type: 'minor' })
    })`
  )
  const env = { JWT_SECRET: SECRET, NODE_OPTIONS: `--require ${hook}`, ...(await databaseEnv(t, 'postgres')) }
  const service = await (await startProcess(t, env, { cwd })).ready()
  const alice = await aliceAt(service)
  for (let n = 0; n < 20; n++) t.equal((await alice('GET')).status, 200)
  t.equal((await service.stop()).code, 0)
  t.notMatch(service.out(), 'pretenuring:')
})
