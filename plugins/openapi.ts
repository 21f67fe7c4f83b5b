import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import swagger from '@fastify/swagger'
import fp from 'fastify-plugin'
import { AT_LEAST_ONE_OF, STORABLE } from './validation.js'

/** This is a package import, because a relative path would differ for the built file, which is in a deeper folder. */
export const { version } = JSON.parse(
  readFileSync(createRequire(import.meta.url).resolve('#package.json'), 'utf8')
) as { version: string }

/** The path of the only operation whose body is optional. */
const OPTIONAL_BODY = '/api/{userId}/tasks/{taskId}/complete'

/** Collects the routes' schemas into an OpenAPI document, which `app.swagger()` returns once the app is ready. */
export default fp(
  async (app) => {
    await app.register(swagger, {
      openapi: {
        openapi: '3.1.0',
        info: {
          title: 'Tasks API',
          version,
          description:
            'A to-do list for each user. Every request needs a JWT, and the user in the path must be the `sub` of that token. ' +
            'Errors are problem details (RFC 9457) with a stable `code`. ' +
            'Every answer has the `X-Request-Id` of the log. A request can set it: 1 to 64 letters, digits and `. _ : -`.',
          license: { name: 'MIT', identifier: 'MIT' }
        },
        servers: [{ url: 'http://127.0.0.1:3000' }],
        tags: [{ name: 'tasks', description: "A user's own tasks" }],
        security: [{ bearer: [] }],
        components: {
          securitySchemes: {
            bearer: {
              type: 'http',
              scheme: 'bearer',
              bearerFormat: 'JWT',
              description:
                'A JWT whose `sub` is the user, without the word Bearer. In development `npm run -s token -- alice` prints one.'
            }
          }
        }
      },
      transformObject: (document) => {
        const { openapiObject } = document as { openapiObject: object }
        const openapi = JSON.parse(JSON.stringify(openapiObject, withoutOwnKeywords))
        // @fastify/swagger marks every body as required.
        openapi.paths[OPTIONAL_BODY].patch.requestBody.required = false
        return openapi
      },
      // SDK generators name their types after the schemas. The default names are def-0, def-1, ….
      refResolver: {
        buildLocalReference: (schema, _base, _fragment, index) => String(schema.$id ?? `def-${index}`)
      }
    })
  },
  { name: 'openapi' }
)

/** Other validators refuse unknown keywords and formats. */
function withoutOwnKeywords(key: string, value: unknown): unknown {
  return key === AT_LEAST_ONE_OF || (key === 'format' && value === STORABLE) ? undefined : value
}
