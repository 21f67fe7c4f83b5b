import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { databaseEnv, emptyDatabase, sqlClient } from '../support/databases.js'
import { emptyFolder, runScript } from '../support/process.js'
import { migrationRefusal } from '../support/start.js'
import t from '../support/tap.js'
import { startProxy } from '../support/tcp-proxy.js'

const DONE = { code: 0, out: '', err: '' }

t.test('migrates a database in production without a source of keys, and can be repeated', async (t) => {
  const DATABASE_URL = await emptyDatabase(t)
  for (let times = 0; times < 2; times++) {
    t.strictSame(await runScript(emptyFolder(t), 'migrate', { DATABASE_URL, NODE_ENV: 'production' }), DONE)
  }
  t.equal((await sqlClient(t, DATABASE_URL)`select * from tasks`).length, 0)
})

t.test('migrates the embedded database, and reads .env', async (t) => {
  const cwd = emptyFolder(t)
  const { DATA_DIR } = await databaseEnv(t, 'embedded')
  writeFileSync(join(cwd, '.env'), `\ufeff   \r\nDATA_DIR=${DATA_DIR}\r\n`)
  t.strictSame(await runScript(cwd, 'migrate', {}), DONE)
})

t.test('a failure prints one line without a password', async (t) => {
  const url = (await emptyDatabase(t)).replace('postgres@', 'tasks:s3cretpassword@')
  const refusing = await startProxy(t, url)
  await refusing.refuse()
  const closing = await startProxy(t, url)
  closing.mode = 'close'
  const noRole = /^DATABASE_URL: .*role "tasks" does not exist/
  const cases: [what: string, DATABASE_URL: string, line: RegExp][] = [
    ['a database that refuses', refusing.url, /^DATABASE_URL: .*ECONNREFUSED/],
    ['a database that hangs up', closing.url, /^DATABASE_URL: .*(closed the connection|ECONNRESET)$/],
    ['a role that does not exist', url, noRole],
    ['a wrong URL', 'mysql://u:s3cretpassword@h/d', /^DATABASE_URL must be/]
  ]
  for (const [what, DATABASE_URL, line] of cases) {
    const refusal = await migrationRefusal({ DATABASE_URL })
    t.match(refusal, line, what)
    t.match(refusal, /^[^\n]+$/, 'one line')
    t.notMatch(refusal, 's3cretpassword')
  }

  t.test('the program prints it, and ends with code 1', async (t) => {
    const { code, out, err } = await runScript(emptyFolder(t), 'migrate', { DATABASE_URL: url })
    t.strictSame({ code, out }, { code: 1, out: '' })
    t.match(err, noRole)
    t.match(err, /^[^\n]+\n$/)
  })
})
