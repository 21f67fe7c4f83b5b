import assert from 'node:assert/strict'
import fc from 'fast-check'
import { REQUESTS, SEED } from '../../fuzz/settings.js'
import {
  type Answer,
  clientOf,
  expectProblem,
  onEachDatabase,
  problem,
  problemIn,
  rowsOf
} from '../../support/api.js'
import { holdsFor } from '../../support/cases.js'
import { JSON_TYPE } from '../../support/refusals.js'
import type { Test } from '../../support/tap.js'

// The rules of valid requests, written independently of the schemas.
const codePoints = (text: string) => [...text].length
const isText = (value: unknown, max: number) =>
  typeof value === 'string' && codePoints(value) <= max && !/\0/.test(value) && value === value.toWellFormed()
const RULES: Record<string, (value: unknown) => boolean> = {
  title: (value) => isText(value, 200) && (value as string).trim() !== '',
  description: (value) => value === null || isText(value, 10_000),
  completed: (value) => value === true || value === false
}

type Fields = Record<string, unknown>
type Entry = [name: string, value: unknown]

const known = (entries: Entry[]): Fields =>
  Object.fromEntries(entries.filter(([name]) => Object.hasOwn(RULES, name)))
const isRight = (fields: Fields) => Object.entries(fields).every(([name, value]) => RULES[name]?.(value))

/** Difficult characters, some of several code points. */
const UNITS = [
  'é',
  'e\u0301',
  '\u1112\u1161\u11ab',
  '한',
  '💡',
  '👩‍👩‍👧',
  '🇨🇭',
  '\u{10ffff}',
  '\uffff',
  '\ufeff',
  '\u200b',
  '\u202e',
  '\u0301',
  '\u0001',
  '\u001f',
  '\u007f',
  '\u0085',
  '\u2028',
  '\\',
  '"',
  "'",
  '%',
  '$1',
  'ﬁ',
  'İ',
  ' ',
  '\r\n'
]
const WHITE = [' ', '\t', '\n', '\v', '\f', '\r', '\u00a0', '\u1680', '\u2003', '\u2028', '\u3000', '\ufeff']
const LONE = ['\ud800', '\udbff', '\udc00', '\udfff', '\udc00\ud800']

const unit = fc.oneof(
  fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }),
  fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
  fc.constantFrom(...UNITS)
)
const text = (max: number) =>
  fc.oneof(
    { weight: 12, arbitrary: fc.string({ unit, minLength: 1, maxLength: 40 }) },
    {
      weight: 6,
      arbitrary: fc
        .tuple(unit, fc.integer({ min: max - 2, max: max + 2 }))
        .map(([char, length]) => [...char.repeat(length)].slice(0, length).join(''))
    },
    { weight: 1, arbitrary: fc.string({ unit: fc.constantFrom(...WHITE), maxLength: 10 }) },
    {
      weight: 2,
      arbitrary: fc
        .tuple(fc.string({ unit }), fc.constantFrom('\0', ...LONE), fc.string({ unit }))
        .map((parts) => parts.join(''))
    }
  )

const wrong = fc.oneof(
  fc.constantFrom(null, 0, 1, '', 'true', 'null', [], ['x'], [true], {}, 1e300),
  fc.jsonValue({ maxDepth: 2 })
)
const value = (right: fc.Arbitrary<unknown>) =>
  fc.oneof({ weight: 9, arbitrary: right }, { weight: 1, arbitrary: wrong })

const UNKNOWN = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'id',
  'user_id',
  'Title',
  'title ',
  'done',
  ''
]

/** The members of a JSON object, in any order. */
const entries: fc.Arbitrary<Entry[]> = fc
  .tuple(
    fc.record({ title: value(text(200)) }, { requiredKeys: [] }),
    fc.record(
      { description: value(fc.option(text(10_000))), completed: value(fc.boolean()) },
      { requiredKeys: [] }
    ),
    fc.array(fc.tuple(fc.constantFrom(...UNKNOWN), fc.jsonValue({ maxDepth: 2 })), { maxLength: 3 })
  )
  .chain(([title, others, unknown]) => {
    const all: Entry[] = [...Object.entries(title), ...Object.entries(others), ...unknown]
    return fc.shuffledSubarray(all, { minLength: all.length })
  })

/** Builds JSON by hand, because an object cannot have a field named __proto__. Lone surrogates become escapes. */
const toJson = (members: Entry[]) =>
  `{${members.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`

const notObjects = fc
  .oneof(fc.constantFrom<unknown>(null, [], '', 'x', 0, true, [{ title: 'a' }]), fc.jsonValue())
  .filter((value) => value === null || typeof value !== 'object' || Array.isArray(value))

/** Number of runs of each property. The slower database has fewer, because it only needs to store and return text. */
const RUNS = { postgres: REQUESTS / 10, embedded: REQUESTS / 20 }

/** Runs a property. It asserts without tap, which would count each run, and reports a counterexample. */
async function holds<T>(t: Test, numRuns: number, property: fc.IAsyncProperty<T>): Promise<void> {
  const { failed, counterexample, errorInstance, seed, counterexamplePath } = await fc.check(property, {
    seed: SEED,
    numRuns
  })
  if (!failed) return void t.pass(`holds for ${numRuns} cases`)
  t.fail(`fails for ${JSON.stringify(counterexample)}`, {
    error: String((errorInstance as Error | null)?.message),
    seed,
    path: counterexamplePath
  })
}

const isRefused = ({ status, json }: Answer) =>
  assert.deepEqual([status, json.code], [422, 'validation_failed'], JSON.stringify(json))

onEachDatabase(async (t, app, kind) => {
  const alice = await clientOf(app, 'alice')
  const runs = RUNS[kind]

  t.test('accepted bodies of POST are stored unchanged, and refused ones create nothing', async (t) => {
    const count = { accepted: 0, refused: 0 }
    const property = fc.asyncProperty(entries, async (members) => {
      const fields = known(members)
      const before = await rowsOf(app)
      const listed = (await alice('GET')).json
      const answer = await alice('POST', '', toJson(members), JSON_TYPE)
      if (!('title' in fields && isRight(fields))) {
        count.refused++
        isRefused(answer)
        assert.deepEqual(await rowsOf(app), before)
        return
      }
      count.accepted++
      assert.equal(answer.status, 201)
      const { id, created_at } = answer.json
      const expected = {
        id,
        user_id: 'alice',
        title: fields.title,
        description: fields.description ?? null,
        completed: fields.completed ?? false,
        completed_at: fields.completed ? created_at : null,
        created_at,
        updated_at: created_at
      }
      assert.deepEqual(answer.json, expected)
      assert.deepEqual((await alice('GET', `/${id}`)).json, expected)
      assert.deepEqual((await alice('GET')).json, [expected, ...listed])
      assert.equal((await alice('DELETE', `/${id}`)).status, 204)
    })
    await holds(t, runs, property)
    t.ok(count.accepted > runs / 10 && count.refused > runs / 10, `both were tried: ${JSON.stringify(count)}`)
  })

  for (const method of ['PATCH', 'PUT']) {
    t.test(
      `accepted bodies of ${method} are stored unchanged, and refused ones change nothing`,
      async (t) => {
        let task = (await alice('POST', '', { title: 'a' })).json
        const count = { accepted: 0, refused: 0 }
        const property = fc.asyncProperty(entries, async (members) => {
          const fields = known(members)
          const before = await rowsOf(app)
          const answer = await alice(method, `/${task.id}`, toJson(members), JSON_TYPE)
          if (Object.keys(fields).length > 0 && isRight(fields)) {
            count.accepted++
            assert.equal(answer.status, 200)
            const { updated_at, completed_at } = answer.json
            assert.deepEqual(answer.json, { ...task, ...fields, updated_at, completed_at })
            assert.ok(updated_at > task.updated_at)
            task = answer.json
          } else {
            count.refused++
            isRefused(answer)
            assert.deepEqual(await rowsOf(app), before)
          }
          assert.deepEqual((await alice('GET', `/${task.id}`)).json, task)
          assert.deepEqual((await alice('GET')).json[0], task)
        })
        await holds(t, runs, property)
        t.ok(
          count.accepted > runs / 10 && count.refused > runs / 10,
          `both were tried: ${JSON.stringify(count)}`
        )
        await alice('DELETE', `/${task.id}`)
      }
    )
  }

  t.test(
    'JSON that is no object is refused by every operation with a body, and changes nothing',
    async (t) => {
      const { id } = (await alice('POST', '', { title: 'a' })).json
      const before = await rowsOf(app)
      const operation = fc.constantFrom(
        ['POST', ''],
        ['PATCH', `/${id}`],
        ['PUT', `/${id}`],
        ['PATCH', `/${id}/complete`]
      )
      const property = fc.asyncProperty(notObjects, operation, async (body, [method, path = '']) => {
        // There null means no body.
        fc.pre(!(body === null && path.endsWith('/complete')))
        const answer = await alice(method as string, path, JSON.stringify(body), JSON_TYPE)
        isRefused(answer)
        assert.deepEqual(answer.json.errors, [{ path: '', message: 'The body must be a JSON object' }])
        assert.deepEqual(await rowsOf(app), before)
      })
      await holds(t, runs, property)
    }
  )

  t.test('values of a wrong type are refused', async (t) => {
    const { id } = (await alice('POST', '', { title: 'a' })).json
    const before = await rowsOf(app)
    const wrongValues: Record<string, unknown[]> = {
      title: [null, 1, 0, true, ['x'], [], {}, { title: 'x' }],
      description: [1, false, ['x'], [], {}],
      completed: [null, 0, 1, '', 'true', 'false', 'on', [true], {}]
    }
    const cases = Object.entries(wrongValues).flatMap(([field, values]) =>
      values.flatMap((value) => ['POST', 'PATCH', 'PUT'].map((method) => ({ method, field, value })))
    )
    await holdsFor(t, 'is refused at its path', cases, async ({ method, field, value }) => {
      const answer = await alice(method, method === 'POST' ? '' : `/${id}`, { title: 'b', [field]: value })
      return [
        [problemIn(answer), answer.json.errors?.[0]?.path],
        [problem('validation_failed'), `/${field}`]
      ]
    })
    t.strictSame(await rowsOf(app), before)
  })

  t.test('lengths are counted in code points', async (t) => {
    const cases = ['a', 'é', '💡', '\u{10ffff}', '\u0001'].flatMap((char) => [
      { char, field: 'title', max: 200 },
      { char, field: 'description', max: 10_000 }
    ])
    await holdsFor(t, 'the longest is stored, one more is refused', cases, async ({ char, field, max }) => {
      const longest = char === '\u0001' && field === 'title' ? `a${char.repeat(max - 1)}` : char.repeat(max)
      const { status, json } = await alice('POST', '', { title: 'a', [field]: longest })
      const tooLong = await alice('POST', '', { title: 'a', [field]: `${longest}${char}` })
      return [
        [status, (await alice('GET', `/${json.id}`)).json[field], tooLong.status],
        [201, longest, 422]
      ]
    })
  })

  t.test('a U+FEFF is stored at any position', async (t) => {
    const mark = '\ufeff'
    const client = await clientOf(app, `${mark}marked`)
    const cases = [`${mark}a`, `${mark}${mark}a`, `a${mark}`, `${mark}a${mark}`].flatMap((title) =>
      [null, '', mark, title].map((description) => ({ title, description }))
    )
    await holdsFor(t, 'is stored and returned', cases, async (task) => {
      const { json } = await client('POST', '', task)
      const { user_id, title, description } = json
      const read = (await client('GET', `/${json.id}`)).json
      const changed = (await client('PATCH', `/${json.id}`, { title: `${task.title}b` })).json
      return [
        [{ user_id, title, description }, read, changed.title],
        [{ user_id: `${mark}marked`, ...task }, json, `${task.title}b`]
      ]
    })
    t.equal((await client('GET')).json.length, 16)
  })

  t.test('escapes in JSON are decoded', async (t) => {
    for (const [escaped, title] of [
      ['\\ud83d\\udca1', '💡'],
      ['\\u0065\\u0301', 'e\u0301'],
      ['\\u00e9', 'é'],
      ['\\\\u0000', '\\u0000'],
      ['\\ufeffa', '\ufeffa']
    ]) {
      t.equal((await alice('POST', '', `{"title":"${escaped}"}`, JSON_TYPE)).json.title, title)
    }
    for (const escaped of ['\\ud800', 'a\\udc00b', '\\udca1\\ud83d', 'a\\u0000', '\\ud83d\\ud83d\\udca1']) {
      expectProblem(
        t,
        await alice('POST', '', `{"title":"${escaped}"}`, JSON_TYPE),
        'validation_failed',
        escaped
      )
    }
  })
})
