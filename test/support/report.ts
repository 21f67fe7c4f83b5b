import type { Base, TAP } from 'tap'

interface Failure {
  /** The file and the titles down to the assertion. */
  fullname: string
  diag: Record<string, unknown> | null
}

/** Prints a line for each file that ends, its failures and comments if it failed, and at the end the totals. */
export function reportOn(run: TAP): void {
  const said = new Map<Base, { failures: Failure[]; comments: string[] }>()
  const failed: string[] = []
  run.on('subtestAdd', (file) => {
    const failures: Failure[] = []
    file.parser.on('fail', (failure: Failure) => failures.push(failure))
    said.set(file, { failures, comments: commentsOf(file.parser) })
  })
  run.on('subtestEnd', (file) => {
    const { name, time, counts, results, options } = file
    const isRight = results?.ok === true
    const columns = [isRight ? 'ok    ' : 'not ok', `${(time / 1000).toFixed(1)} s`.padStart(8)]
    console.log([...columns, String(counts.total).padStart(6), name].join('  '))
    if (isRight) return
    failed.push(name)
    const { failures = [], comments = [] } = said.get(file) ?? {}
    for (const failure of failures) console.log(`\n${textOf(failure)}\n`)
    if (failures.length === 0) {
      console.log(`\n  ended with ${options.signal ?? `exit code ${options.exitCode}`}\n`)
    }
    for (const comment of comments) console.log(`  ${comment.trimEnd()}`)
  })
  run.on('complete', () => {
    for (const name of failed) console.log(`failed: ${name}`)
    const { pass, fail, skip, todo } = run.counts
    console.log(`${pass} passed, ${fail} failed${skip + todo > 0 ? `, ${skip + todo} skipped` : ''}`)
  })
}

/** What tests say with `t.comment`, without what tap says itself; filled while the file runs. */
function commentsOf(parser: Base['parser'], comments: string[] = []): string[] {
  parser.on('child', (child) => commentsOf(child, comments))
  parser.on('comment', (comment: string) => {
    if (!/^# (Subtest|time=|test count|failed \d)/.test(comment)) comments.push(comment)
  })
  return comments
}

const asText = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value))

/** Where it is and what was expected come first. */
function textOf({ fullname, diag }: Failure): string {
  const { at, diff, source, stack = '', compare, ...rest } = diag ?? {}
  const { fileName, lineNumber } = (at ?? {}) as { fileName?: string; lineNumber?: number }
  // The line of the test, rather than of a helper that it calls.
  const [where = fileName ? `${fileName}:${lineNumber}` : ''] =
    /test\/[^:]+\.test\.ts:\d+/.exec(String(stack)) ?? []
  const parts = [
    `${where}  ${fullname}`,
    diff && `expected (-) and received (+):\n${String(diff).replaceAll(/^(---|\+\+\+|@@) .*\n/gm, '')}`,
    ...Object.entries(rest).map(([name, value]) => `${name}: ${asText(value)}`),
    source,
    stack
  ]
  const text = parts.filter(Boolean).map((part) => String(part).trimEnd())
  return text.join('\n').replaceAll(/^/gm, '  ')
}
