import type { FastifyServerOptions } from 'fastify'

/** The name of a JSON Schema keyword of our own: a list of properties, of which the object must have one. */
export const AT_LEAST_ONE_OF = 'x-at-least-one-of'

/** The name of a string format of our own: what PostgreSQL can store as it is, so neither NUL nor lone surrogates. */
export const STORABLE = 'storable-text'

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
