import type { FastifyError, FastifySchemaValidationError, FastifyServerOptions } from 'fastify'

/** A JSON Schema keyword of our own: the object must have at least one of the listed properties. */
export const AT_LEAST_ONE_OF = 'x-at-least-one-of'

/** A string format of our own: PostgreSQL cannot store NUL or lone surrogates. */
export const STORABLE = 'storable-text'

export const NOT_BLANK = '\\S'

/** Visible ASCII characters: VCHAR of RFC 5234. */
export const VISIBLE_ASCII = '^[\\x21-\\x7e]+$'

/** Validation is strict: values are not coerced, filled in or removed, and every error is reported. */
export const ajv: NonNullable<FastifyServerOptions['ajv']> = {
  customOptions: {
    coerceTypes: false,
    useDefaults: false,
    removeAdditional: false,
    // The schemas have few fields, and unknown ones are ignored. So a request has few errors.
    allErrors: true,
    formats: { [STORABLE]: (text: string) => !text.includes('\0') && text.isWellFormed() },
    keywords: [
      {
        keyword: AT_LEAST_ONE_OF,
        type: 'object',
        schemaType: 'array',
        // Ajv requires this form for a keyword that sets its own errors.
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

/** One broken rule in a request. */
export interface Violation {
  /** A JSON pointer into the body, the query or the headers. */
  path: string
  /** A sentence for a person, without its full stop. */
  message: string
}

/** If both rules are broken at one path, the message of the second is enough. */
const COVERED_BY: Record<string, string> = {
  minProperties: AT_LEAST_ONE_OF,
  pattern: 'minLength',
  type: 'enum'
}

/** Translates Ajv's errors into sentences for a person. */
export function violationsOf({
  validation: errors = [],
  validationContext: context
}: FastifyError): Violation[] {
  const isBroken = (keyword: string | undefined, path: string) =>
    errors.some((one) => one.keyword === keyword && one.instancePath === path)
  return errors
    .filter(({ keyword, instancePath }) => !isBroken(COVERED_BY[keyword], instancePath))
    .map(({ keyword, instancePath, params, message = 'is not valid' }) => {
      const path = keyword === 'required' ? `${instancePath}/${params.missingProperty}` : instancePath
      const name = nameOf(context, path)
      return { path, message: MESSAGES[keyword]?.(name, params) ?? `${name} ${message}` }
    })
}

/** Joins all violations into one sentence. */
export const sentenceOf = (violations: Violation[]): string =>
  `${violations.map(({ message }) => message).join('; ')}.`

/** All schemas are flat: a path is the name of a field, or empty for the whole object. */
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
