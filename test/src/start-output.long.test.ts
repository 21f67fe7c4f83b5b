import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { databaseEnv, emptyDatabase } from '../support/databases.js'
import { emptyFolder, startProcess, until } from '../support/process.js'
import { ROOT } from '../support/root.js'
import { SECRET } from '../support/sign.js'
import t, { type Test } from '../support/tap.js'

/** Runs a command with a terminal as its output, by `script` of util-linux. */
const IN_TERMINAL = ['sh', '-c', `exec script -qec "'$0' '$1'" /dev/null`]

const noTerminal = spawnSync('script', ['--version']).stdout?.includes('util-linux')
  ? false
  : 'this machine has no script of util-linux'

/** The output of a start and a refused token. */
async function linesOf(t: Test, env: Record<string, string>, within: string[] = []): Promise<string[]> {
  const service = await (await startProcess(t, { LOG_LEVEL: 'info', ...env }, { within })).ready()
  const written = () => service.out() + service.err()
  // The greeting is printed directly after the listeners are ready.
  await until(() => env.NODE_ENV === 'production' || written().includes('curl '))
  await fetch(`${service.api}/api/alice/tasks`, { headers: { authorization: 'Bearer wrong' } })
  await until(() => written().includes('token refused'))
  await service.stop('SIGKILL')
  return written().replaceAll('\r\n', '\n').trimEnd().split('\n')
}

t.test('on a terminal the start prints one block of plain lines', { skip: noTerminal }, async (t) => {
  const { DATA_DIR = '' } = await databaseEnv(t, 'embedded')
  const lines = await linesOf(t, { DATA_DIR }, IN_TERMINAL)
  t.notOk(
    lines.some((line) => line.startsWith('{') || line.includes('"level"')),
    'no JSON'
  )
  const end = lines.findIndex((line) => line.startsWith('curl '))
  t.match(lines.slice(0, end + 1), [
    '',
    /^API {3}http:\/\/127\.0\.0\.1:\d+$/,
    /^Docs {2}http:\/\/127\.0\.0\.1:\d+\/docs$/,
    `Data  ${join(DATA_DIR, 'postgres')}`,
    'Token npm run -s token -- alice',
    '',
    "Alice's tasks:",
    /^curl -H 'Authorization: Bearer [\w.-]+' http:\/\/127\.0\.0\.1:\d+\/api\/alice\/tasks$/
  ])
  t.equal(end, 7, 'and nothing before it')
  t.ok(
    lines.slice(end).some((line) => /^(\x1b\[\d+m)?\[\d\d:\d\d:\d\d\]/.test(line)),
    'log lines are readable too'
  )
})

t.test('in a pipe every log line is JSON, and the block is the same', async (t) => {
  const lines = await linesOf(t, { DATABASE_URL: await emptyDatabase(t) })
  const [log, others] = [
    lines.filter((line) => line.startsWith('{')),
    lines.filter((line) => !line.startsWith('{'))
  ]
  t.equal(
    log.filter((line) => /listen|operations/i.test(JSON.parse(line).msg)).length,
    1,
    'one line says where'
  )
  t.match(others, [
    '',
    /^API /,
    /^Docs /,
    'Data  the PostgreSQL of DATABASE_URL',
    /^Token /,
    '',
    /^Alice/,
    /^curl /
  ])
})

t.test('with JWKS_URL it prints the issuer', async (t) => {
  const JWKS_URL = 'http://127.0.0.1:9/jwks.json'
  const service = await (await startProcess(t, { JWKS_URL, DATABASE_URL: await emptyDatabase(t) })).ready()
  await until(() => service.out().includes('Token '))
  t.match(service.out(), `\nToken from the issuer whose keys are at ${JWKS_URL}\n`)
  t.notMatch(service.out(), 'curl')
})

for (const [where, within] of [
  ['piped', []],
  ['on a terminal', IN_TERMINAL]
] as const) {
  const skip = within.length > 0 && noTerminal
  t.test(`in production all output is JSON lines, ${where}`, { skip }, async (t) => {
    const env = { NODE_ENV: 'production', JWT_SECRET: SECRET, DATABASE_URL: await emptyDatabase(t) }
    const lines = await linesOf(t, env, [...within])
    t.ok(lines.length >= 2)
    t.doesNotThrow(() => lines.map((line) => JSON.parse(line)))
  })
}

t.test('npm start prints one line if it compiles, and nothing otherwise', async (t) => {
  const app = join(emptyFolder(t), 'app')
  mkdirSync(join(app, 'src'), { recursive: true })
  for (const path of ['package.json', 'tsconfig.json', 'tsconfig.build.json', 'scripts/prestart.mjs']) {
    cpSync(join(ROOT, path), join(app, path))
  }
  symlinkSync(join(ROOT, 'node_modules'), join(app, 'node_modules'))
  const write = (code: string) => writeFileSync(join(app, 'src/server.ts'), code)
  const start = () => {
    const { status, stdout, stderr } = spawnSync('npm', ['-s', 'start'], { cwd: app, encoding: 'utf8' })
    return { status, stdout, stderr }
  }
  const compiling = 'Compiling the sources, which takes some seconds.\n'
  write("console.log('one')")
  t.strictSame(start(), { status: 0, stdout: 'one\n', stderr: compiling }, 'the first time')
  t.strictSame(start(), { status: 0, stdout: 'one\n', stderr: '' }, 'the second time')
  write("console.log('two')")
  t.strictSame(start(), { status: 0, stdout: 'two\n', stderr: compiling }, 'after a change')
  write("console.log('two' * 2)")
  t.match(start(), {
    status: 1,
    stdout: '',
    stderr: /^Compiling[^\n]*\nsrc\/server\.ts\(1,13\): error TS2362: [^\n]*\n$/
  })
})
