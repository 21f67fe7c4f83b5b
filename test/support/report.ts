import type { Base, TAP } from 'tap'

interface Failure {
  /** The worker, the file, and the titles of the tests around an assertion. */
  fullname: string
  diag: Record<string, unknown> | null
}

/** The results of a file so far. */
interface Outcome {
  name: string
  assertions: number
  failures: Failure[]
  comments: string[]
}

export interface Report {
  began(file: string): void
  /** The worker ended before the file did. */
  broke(file: string, how: string): void
}

/** Prints a line for each file. A failed file also has its failures and comments. The totals are at the end. */
export function reportOn(run: TAP): Report {
  const failed: string[] = []
  const running = new Map<string, number>()

  function print({ name, assertions, failures, comments }: Outcome, isRight: boolean, end?: string) {
    const seconds = ((performance.now() - (running.get(name) ?? Number.NaN)) / 1000).toFixed(1)
    running.delete(name)
    const columns = [
      isRight ? 'ok    ' : 'not ok',
      `${seconds} s`.padStart(8),
      String(assertions).padStart(6)
    ]
    console.log([...columns, name].join('  '))
    if (isRight) return
    failed.push(name)
    for (const failure of failures) console.log(`\n${textOf(failure, name)}\n`)
    if (end) console.log(`\n  ended with ${end}\n`)
    for (const comment of comments) console.log(`  ${comment.trimEnd()}`)
  }

  run.on('subtestAdd', (worker) => {
    // A worker runs one file after another.
    let file: Outcome | undefined
    const { parser } = worker
    parser.on('child', (child) => {
      const outcome = { name: child.name, assertions: 0, failures: [], comments: commentsOf(child) }
      file = outcome
      child.on('complete', ({ ok }: { ok: boolean }) => print(outcome, ok))
    })
    for (const event of ['pass', 'fail', 'skip', 'todo'] as const) {
      parser.on(event, () => {
        if (file) file.assertions++
      })
    }
    parser.on('fail', (failure: Failure) => file?.failures.push(failure))
  })
  run.on('complete', () => {
    for (const name of failed) console.log(`failed: ${name}`)
    const { pass, fail, skip, todo } = run.counts
    console.log(`${pass} passed, ${fail} failed${skip + todo > 0 ? `, ${skip + todo} skipped` : ''}`)
  })

  return {
    began: (file) => void running.set(file, performance.now()),
    broke(name, how) {
      if (running.has(name)) print({ name, assertions: 0, failures: [], comments: [] }, false, how)
    }
  }
}

/** Comments of `t.comment`, without those of tap itself. Filled while the file runs. */
function commentsOf(parser: Base['parser'], comments: string[] = []): string[] {
  parser.on('child', (child) => commentsOf(child, comments))
  parser.on('comment', (comment: string) => {
    if (!/^# (Subtest|time=|test count|failed \d)/.test(comment)) comments.push(comment)
  })
  return comments
}

const asText = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value))

/** The position and the expected value come first. */
function textOf({ fullname, diag }: Failure, file: string): string {
  const { at, diff, source, stack = '', compare, ...rest } = diag ?? {}
  const { fileName, lineNumber } = (at ?? {}) as { fileName?: string; lineNumber?: number }
  // The line in the test, not in a helper.
  const [where = fileName ? `${fileName}:${lineNumber}` : ''] =
    /test\/[^:]+\.test\.ts:\d+/.exec(String(stack)) ?? []
  const parts = [
    `${where}  ${fullname.slice(fullname.indexOf(file))}`,
    diff && `expected (-) and received (+):\n${String(diff).replaceAll(/^(---|\+\+\+|@@) .*\n/gm, '')}`,
    ...Object.entries(rest).map(([name, value]) => `${name}: ${asText(value)}`),
    source,
    stack
  ]
  const text = parts.filter(Boolean).map((part) => String(part).trimEnd())
  return text.join('\n').replaceAll(/^/gm, '  ')
}
