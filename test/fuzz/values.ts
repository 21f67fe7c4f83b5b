import fc from 'fast-check'
import { type Document, resolve, type Schema, type Validate } from './document.js'

type Any = fc.Arbitrary<unknown>

/** Difficult code points, in addition to those of fast-check. */
const POINTS = [
  '\ufeff',
  '\u0301',
  '\u200b',
  '\u202e',
  '\u2028',
  '\u{10ffff}',
  '\uffff',
  '💡',
  '\\',
  '"',
  "'",
  ' ',
  '%'
]
const point = fc.oneof(
  fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 1 }),
  fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
  fc.constantFrom(...POINTS)
)

const WHITE = [' ', '\t', '\n', '\r', '\u00a0', '\u2003', '\u3000', '\ufeff']
/** Text that PostgreSQL cannot store. */
const UNSTORABLE = ['\0', '\0', '\ud800', '\udbff', '\udc00', '\udc00\ud800']

const repeated = (length: number) => point.map((one) => [...one.repeat(length)].slice(0, length).join(''))

const wrongType: Any = fc.constantFrom<unknown>(
  null,
  0,
  1,
  -1,
  1e300,
  true,
  false,
  '',
  'true',
  'false',
  'null',
  '1',
  [],
  ['x'],
  [true],
  {},
  { title: 'x' }
)

const anyJson: Any = fc.jsonValue({ maxDepth: 3 })

function rightString({ enum: choices, minLength = 0, maxLength = 300 }: Schema): fc.Arbitrary<string> {
  if (choices) return fc.constantFrom(...choices)
  return fc.oneof(
    { weight: 12, arbitrary: fc.string({ unit: point, minLength, maxLength: Math.min(maxLength, 40) }) },
    {
      weight: 1,
      arbitrary: fc
        .tuple(fc.constantFrom(...WHITE), point, fc.constantFrom(...WHITE))
        .map((all) => all.join(''))
    },
    { weight: 1, arbitrary: fc.constantFrom(minLength, maxLength - 1, maxLength).chain(repeated) }
  )
}

function nearString({ minLength = 0, maxLength = 300 }: Schema): fc.Arbitrary<string> {
  const lengths = [Math.max(0, minLength - 1), maxLength, maxLength + 1, maxLength + 50]
  const unstorable = fc.tuple(
    fc.string({ unit: point }),
    fc.constantFrom(...UNSTORABLE),
    fc.string({ unit: point })
  )
  return fc.oneof(
    { weight: 2, arbitrary: fc.constantFrom(...lengths).chain(repeated) },
    { weight: 1, arbitrary: fc.string({ unit: fc.constantFrom(...WHITE), maxLength: 10 }) },
    { weight: 4, arbitrary: unstorable.map((all) => all.join('')) },
    { weight: 1, arbitrary: fc.string({ unit: point }) }
  )
}

/** The members of an object in the order in which they are written, so that names may repeat and be `__proto__`. */
export class Members {
  constructor(readonly entries: [name: string, value: unknown][]) {}

  toText(): string {
    return `{${this.entries.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`
  }
}

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
const unknownMembers = fc.array(fc.tuple(fc.constantFrom(...UNKNOWN), anyJson), { maxLength: 2 })

/**
 * Values that are valid for a schema (`right`), that break one rule or are at its limit (`near`), and any value
 * (`wild`).
 */
export function valuesOf(document: Document, isRight: Validate) {
  function right(schema: Schema): Any {
    const { type, enum: choices, properties, required = [] } = resolve(document, schema)
    if (Array.isArray(type)) return fc.oneof(...type.map((one) => right({ ...schema, type: one })))
    if (properties) {
      return fc
        .tuple(
          ...Object.entries(properties).map(([name, value]) => {
            const member = right(value).map((one): [string, unknown] => [name, one])
            return required.includes(name) ? member : fc.option(member, { nil: undefined, freq: 2 })
          })
        )
        .chain((known) =>
          unknownMembers.map((unknown) => [...unknown, ...known.filter((one) => one !== undefined)])
        )
        .chain((all) => fc.shuffledSubarray(all, { minLength: all.length }))
        .map((all) => new Members(all))
    }
    if (type === 'boolean') return fc.boolean()
    if (type === 'null') return fc.constant(null)
    if (type === 'string' || choices) return rightString(schema).filter((one) => isRight(schema, one) === '')
    throw new Error(`no values for ${JSON.stringify(schema)}`)
  }

  function near(schema: Schema): Any {
    const { type, properties } = resolve(document, schema)
    if (properties) {
      const names = Object.keys(properties)
      return fc.tuple(right(schema), fc.constantFrom(...names)).chain(([object, name]) => {
        const others = (object as Members).entries.filter(([one]) => one !== name)
        return fc.oneof(
          { weight: 1, arbitrary: fc.constant(new Members(others)) },
          {
            weight: 6,
            arbitrary: near(properties[name] as Schema).map(
              (value) => new Members([...others, [name, value]])
            )
          },
          // Of two members with one name the last counts. RFC 8259 leaves it open, and JSON.parse does so.
          {
            weight: 1,
            arbitrary: near(properties[name] as Schema).map(
              (value) => new Members([[name, value], ...(object as Members).entries])
            )
          }
        )
      })
    }
    return [type].flat().includes('string')
      ? fc.oneof({ weight: 2, arbitrary: nearString(schema) }, { weight: 1, arbitrary: wrongType })
      : wrongType
  }

  return {
    right,
    near,
    any: (schema: Schema): Any =>
      fc.oneof(
        { weight: 16, arbitrary: right(schema) },
        { weight: 5, arbitrary: near(schema) },
        { weight: 1, arbitrary: anyJson }
      )
  }
}
