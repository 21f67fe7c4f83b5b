import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sentencesOf } from '../support/prose.js'
import { ROOT } from '../support/root.js'
import t from '../support/tap.js'

// The rules for English in docs/development.md, as far as a program can check them.

const MAX_WORDS = 25

const AVOID: [RegExp, string][] = [
  [/^(What|Whatever|Whoever|Such as|Of which)\b(?!.*\?$)/, 'name the thing first'],
  [/\bsuch as to\b/i, 'write "so that"'],
  [/\b(give|gives|given|gave|giving) up\b/i, 'write "cancel", "time out" or "stop"'],
  [/\b(owes?|owed)\b/i, 'say what is missing'],
  [/\b(useless|of no use)\b/i, 'say why'],
  [/\bnobody (waits|listens|asks)\b/i, 'say who is gone'],
  [/\b(a|is|are|stays?|goes|for) silent|\bsilent \w/i, 'write "dead" or "without an answer"'],
  [/\b(colors?|behaviors?|favors?|honors?|neighbors?|centers?|catalogs?|gray)\b/i, 'British spelling'],
  [/\b(cancel|label|model|travel|signal)(ed|ing)\b/i, 'British spelling: ll'],
  [/\b(?!\w*(siz|priz|seiz|authoriz))\w+[iy]z(e|es|ed|er|ers|ing|ation|ations)\b/i, 'British spelling: -ise']
]

const GENERATED = /^(bench\/results|db\/migrations)\/|(-lock|openapi.*|dashboard)\.json$|^LICENSE$|\.svg$/

function findingsIn(file: string, text: string): string[] {
  return sentencesOf(file, text).flatMap(({ line, text }) => {
    const advice = AVOID.flatMap(([pattern, advice]) => (pattern.test(text) ? advice : []))
    const words = text.split(' ').filter((word) => /\w/.test(word)).length
    if (words > MAX_WORDS) advice.push(`${words} words`)
    return advice.map((advice) => `${file}:${line}: ${advice}: ${text}`)
  })
}

t.test('a long sentence, an opening and a word to avoid are found with their lines', async (t) => {
  const code = [
    '',
    '/**',
    ' * Whatever ends early. It gives up.',
    ' *',
    ' * @param color the color of `behavior`',
    ' */',
    "const text = '//What is text'",
    'f(1,\t// Of which one is left.',
    '  2)',
    '// One',
    `// ${'word '.repeat(25)}`,
    't.test(',
    "  'canceled', () => {})"
  ]
  t.strictSame(findingsIn('a.ts', code.join('\n')), [
    'a.ts:3: name the thing first: Whatever ends early.',
    'a.ts:3: write "cancel", "time out" or "stop": It gives up.',
    'a.ts:5: British spelling: the color of CODE',
    'a.ts:8: name the thing first: Of which one is left.',
    `a.ts:10: 26 words: One${' word'.repeat(25)}`,
    'a.ts:13: British spelling: ll: canceled'
  ])
  const page = `
# Size

What is it? [What](#size) it is.

- one
- serialize

| a | b |
| --- | --- |
| useless | fine |
`
  t.strictSame(findingsIn('a.md', page), [
    'a.md:4: name the thing first: What it is.',
    'a.md:7: British spelling: -ise: serialize',
    'a.md:11: say why: useless'
  ])
  t.strictSame(findingsIn('a.sql', 'select 1;\n  -- Such as\n  -- this.'), [
    'a.sql:2: name the thing first: Such as this.'
  ])
})

const tracked = execFileSync('git', ['ls-files'], { cwd: ROOT, encoding: 'utf8' }).trim().split('\n')

t.test('comments, test titles and pages keep the rules for English', async (t) => {
  const files = tracked.filter((file) => !GENERATED.test(file))
  const findings = files.flatMap((file) => findingsIn(file, readFileSync(join(ROOT, file), 'utf8')))
  t.strictSame(findings, [])
})
