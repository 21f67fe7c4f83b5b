import type { FastifySchemaValidationError, FastifyServerOptions } from 'fastify'

/** The name of a JSON Schema keyword of our own: a list of properties, of which the object must have one. */
export const AT_LEAST_ONE_OF = 'x-at-least-one-of'

/** The name of a string format of our own: what PostgreSQL can store as it is, so neither NUL nor lone surrogates. */
export const STORABLE = 'storable-text'

export const NOT_BLANK = '\\S'

/** What HTTP allows in a header without quoting: RFC 5234's VCHAR. */
export const VISIBLE_ASCII = '^[\\x21-\\x7e]+$'

/** How requests are validated: strictly. Nothing is coerced, filled in or removed, and every error is told. */
export const ajv: NonNullable<FastifyServerOptions['ajv']> = {
  customOptions: {
    coerceTypes: false,
    useDefaults: false,
    removeAdditional: false,
    // Bounded by the schemas: unknown fields are not looked at, so there are few things that can be wrong.
    allErrors: true,
    formats: { [STORABLE]: (text: string) => !text.includes('\0') && text.isWellFormed() },
    keywords: [
      {
        keyword: AT_LEAST_ONE_OF,
        type: 'object',
        schemaType: 'array',
        // The form that Ajv asks for where a keyword tells its own error.
        validate: Object.assign(
          function validate(names: string[], object: object): boolean {
            if (names.some((name) => Object.hasOwn(object, name))) return true
            Object.assign(validate, { errors: [{ keyword: AT_LEAST_ONE_OF, params: { names } }] })
            return false
          },
          { errors: [] }
        )
      }
    ]
  }
}

/** One thing that is wrong with a request. */
export interface Violation {
  /** Where, as a JSON pointer into the body, the query or the headers. */
  path: string
  /** What is wrong, for a person, as a sentence without its full stop. */
  message: string
}

/** Of two rules that are broken at one place, the second says all that the first does. */
const SAID_BY: Record<string, string> = {
  minProperties: AT_LEAST_ONE_OF,
  pattern: 'minLength',
  type: 'enum'
}

/** Says for a person what is wrong with a request. */
export function violationsOf(
  context: string | undefined,
  errors: FastifySchemaValidationError[]
): Violation[] {
  const isBroken = (keyword: string | undefined, path: string) =>
    errors.some((one) => one.keyword === keyword && one.instancePath === path)
  return errors
    .filter(({ keyword, instancePath }) => !isBroken(SAID_BY[keyword], instancePath))
    .map(({ keyword, instancePath, params, message = 'is not valid' }) => {
      const path = keyword === 'required' ? `${instancePath}/${params.missingProperty}` : instancePath
      const name = nameOf(context, path)
      return { path, message: MESSAGES[keyword]?.(name, params) ?? `${name} ${message}` }
    })
}

/** All that is wrong, as one sentence. */
export const sentenceOf = (violations: Violation[]): string =>
  `${violations.map(({ message }) => message).join('; ')}.`

/** All schemas are flat: a path is a field's name, or empty for the whole. */
function nameOf(context: string | undefined, path: string): string {
  if (path === '') return `The ${context}`
  const name = path.slice(1)
  return context === 'headers' ? name.replace(/\b[a-z]/g, (first) => first.toUpperCase()) : name
}

const PATTERNS: Record<string, string> = {
  [NOT_BLANK]: 'must not be blank',
  [VISIBLE_ASCII]: 'must be visible ASCII characters without spaces'
}

const TYPES: Record<string, string> = {
  object: 'a JSON object',
  string: 'text',
  boolean: 'true or false',
  null: 'null'
}

const listed = (names: unknown, type: 'conjunction' | 'disjunction') =>
  new Intl.ListFormat('en', { type }).format(names as string[])

const MESSAGES: Record<string, (name: string, params: FastifySchemaValidationError['params']) => string> = {
  required: (name) => `${name} is required`,
  type: (name, { type }) =>
    `${name} must be ${[type]
      .flat()
      .map((one) => TYPES[one as string])
      .join(' or ')}`,
  enum: (name, { allowedValues }) => `${name} must be ${listed(allowedValues, 'disjunction')}`,
  minLength: (name) => `${name} must not be empty`,
  maxLength: (name, { limit }) => `${name} must be at most ${Number(limit).toLocaleString('en')} characters`,
  pattern: (name, { pattern }) => `${name} ${PATTERNS[pattern as string]}`,
  format: (name) => `${name} must not contain NUL characters or lone surrogates`,
  [AT_LEAST_ONE_OF]: (_name, { names }) => `At least one of ${listed(names, 'conjunction')} is required`
}
