import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { StartError } from '../../db/errors.js'
import { loadDotEnv } from '../../src/dot-env.js'
import t, { type Test } from '../support/tap.js'

/** The variables that a file with this content adds. */
function added(t: Test, content: string | Buffer, env: Record<string, string> = {}) {
  const file = join(t.testdir(), '.env')
  writeFileSync(file, content)
  loadDotEnv(env, file)
  return env
}

t.test('values are read unchanged', async (t) => {
  const both = { JWT_SECRET: 'abc', PORT: '1' }
  const cases: [what: string, content: string | Buffer, expected: Record<string, string>][] = [
    ['plain', 'JWT_SECRET=abc\nPORT=1\n', both],
    ['without a line feed at its end', 'JWT_SECRET=abc\nPORT=1', both],
    ['with a byte order mark', '\ufeffJWT_SECRET=abc\nPORT=1\n', both],
    ['with line ends of Windows', 'JWT_SECRET=abc\r\n\r\nPORT=1\r\n', both],
    ['with line ends of an old Mac', 'JWT_SECRET=abc\rPORT=1\r', both],
    ['with blank lines of spaces and tabs', '   \nJWT_SECRET=abc\n \t \n\n  \nPORT=1\n   ', both],
    ['with such lines of Windows', '\ufeff  \r\nJWT_SECRET=abc\r\n   \r\nPORT=1\r\n', both],
    ['with spaces around names and values', '  JWT_SECRET = abc  \n\tPORT\t=\t1\t\n', both],
    ['with comments', '# JWT_SECRET=x\nJWT_SECRET=abc # y\n  #\nPORT="1" # z', both],
    ['with export', 'export JWT_SECRET=abc\n export\tPORT=1', both],
    ['with quotes', 'JWT_SECRET="abc"\nPORT=\'1\'', both],
    ['with empty values', 'A=\nB=   \nC= # c\nD=""\nE=', { A: '', B: '', C: '', D: '', E: '' }],
    ['whose last value of a name counts', 'PORT=2\nPORT=1\nJWT_SECRET=abc', both],
    ['with signs in values', "A=a=b;c'd`e\nB='a#b'\nC=it's", { A: "a=b;c'd`e", B: 'a#b', C: "it's" }],
    ['with quoted spaces', 'A=" a "\nB=` "b" `', { A: ' a ', B: ' "b" ' }],
    [
      'with a value of several lines',
      'A="b\nc\r\nd"\nB="b\\nc"\nC=\'b\\nc\'',
      { A: 'b\nc\nd', B: 'b\nc', C: 'b\\nc' }
    ],
    ['with letters of any language', 'A=zażółć 鍵 🔑', { A: 'zażółć 鍵 🔑' }],
    ['that is empty', '', {}],
    ['that holds only a byte order mark', '\ufeff', {}]
  ]
  for (const [what, content, expected] of cases) {
    t.test(what, async (t) => {
      t.strictSame(added(t, content), expected)
    })
  }
})

t.test('an ambiguous file is refused in one line without its content', async (t) => {
  const utf16 = (text: string) => Buffer.from(text, 'utf16le')
  const encoding = /^\.env: .*save it as UTF-8$/
  const cases: [what: string, content: string | Buffer, line: RegExp][] = [
    ['UTF-16, as PowerShell writes it', utf16('\ufeffJWT_SECRET=s3cret\n'), encoding],
    ['UTF-16, the bytes the other way round', utf16('\ufeffJWT_SECRET=s3cret\n').swap16(), encoding],
    ['UTF-16 without a byte order mark', utf16('JWT_SECRET=s3cret\n'), encoding],
    ['Latin-1', Buffer.from('JWT_SECRET=s3cretä', 'latin1'), encoding],
    ['a line that assigns nothing', 'PORT=1\n\nJWT_SECRET: s3cret\n', /^\.env: line 3 /],
    ['a name with a space', 'JWT SECRET=s3cret', /^\.env: line 1 /],
    ['no name', '\r\n=s3cret', /^\.env: line 2 /],
    ['a quote without an end', 'JWT_SECRET="s3cret\nPORT=1\n', /^\.env: line 1 /],
    [
      'a quote that ends in another line',
      'JWT_SECRET="s3cret\nDATABASE_URL="postgres://x"',
      /^\.env: line 1 /
    ],
    ['text after a quote', 'PORT="1"\nJWT_SECRET="s3cret"s3cret', /^\.env: line 2 /],
    ['a quote in a quote', 'JWT_SECRET="s3\\"cret"', /^\.env: line 1 /],
    ['a # that may begin a comment', 'JWT_SECRET=s3cret#s3cret', /^\.env: line 1 .*quotes/],
    ['a # at the start of a value', 'JWT_SECRET=#s3cret', /^\.env: line 1 .*quotes/]
  ]
  for (const [what, content, line] of cases) {
    t.test(what, async (t) => {
      const env = {}
      try {
        added(t, content, env)
        t.fail(`accepted: ${JSON.stringify(env)}`)
      } catch (error) {
        t.ok(error instanceof StartError)
        const { message } = error as Error
        t.match(message, line)
        t.notMatch(message, /[\r\n]|s3/)
      }
      t.strictSame(env, {}, 'and nothing of it is used')
    })
  }
})

t.test('variables of the environment keep their values', async (t) => {
  const env = { PORT: '', HOST: '::1' }
  t.strictSame(added(t, 'PORT=1\nHOST=::\nLOG_LEVEL=debug', env), { ...env, LOG_LEVEL: 'debug' })
})

t.test('production does not read the file', async (t) => {
  t.strictSame(added(t, 'nonsense', { NODE_ENV: 'production' }), { NODE_ENV: 'production' })
})

t.test('a missing file is no error, and an unreadable one is', async (t) => {
  const file = join(t.testdir(), '.env')
  const env = {}
  loadDotEnv(env, file)
  t.strictSame(env, {})
  // Docker creates a folder if a mounted file does not exist.
  mkdirSync(file)
  t.throws(() => loadDotEnv(env, file), { constructor: StartError, message: /^\.env: .*EISDIR/ })
})
