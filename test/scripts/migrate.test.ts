import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { databaseEnv, emptyDatabase, sqlClient } from '../support/databases.js'
import { emptyFolder, runScript } from '../support/process.js'
import { startProxy } from '../support/tcp-proxy.js'

const DONE = { code: 0, out: '', err: '' }

t.test('brings a database up to date, and may be repeated', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  for (let times = 0; times < 2; times++) {
    t.strictSame(
      await runScript(emptyFolder(t), 'migrate', {
        DATABASE_URL,
        NODE_ENV: 'production',
        JWT_SECRET: 'x'.repeat(32)
      }),
      DONE
    )
  }
  t.equal((await sqlClient(t, DATABASE_URL)`select * from tasks`).length, 0)
})

t.test('works on the embedded database, and reads .env', async (t) => {
  const cwd = emptyFolder(t)
  const { DATA_DIR } = await databaseEnv(t, 'embedded')
  writeFileSync(join(cwd, '.env'), `\ufeff   \r\nDATA_DIR=${DATA_DIR}\r\n`)
  t.strictSame(await runScript(cwd, 'migrate', {}), DONE)
})

t.test('fails with one line, and without a password', async (t) => {
  const url = (await emptyDatabase(t)).replace('postgres@', 'tasks:s3cretpassword@')
  const refusing = await startProxy(t, url)
  await refusing.refuse()
  const closing = await startProxy(t, url)
  closing.mode = 'close'
  const cases: [what: string, DATABASE_URL: string, line: RegExp][] = [
    ['a database that refuses', refusing.url, /^DATABASE_URL: .*ECONNREFUSED/],
    ['a database that hangs up', closing.url, /^DATABASE_URL: .*does not answer/],
    ['a role that does not exist', url, /^DATABASE_URL: .*role "tasks" does not exist/],
    ['a wrong URL', 'mysql://u:s3cretpassword@h/d', /^DATABASE_URL must be/]
  ]
  for (const [what, DATABASE_URL, line] of cases) {
    t.test(what, async (t) => {
      const { code, out, err } = await runScript(emptyFolder(t), 'migrate', { DATABASE_URL })
      t.equal(code, 1)
      t.equal(out, '')
      t.match(err, /^[^\n]+\n$/, 'one line')
      t.match(err, line)
      t.notMatch(err, 's3cretpassword')
    })
  }
})
