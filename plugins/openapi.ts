import swagger from '@fastify/swagger'
import fp from 'fastify-plugin'

/** The operation that does something without a body too. */
const BODY_IS_OPTIONAL = 'toggleTaskCompletion'

/** Collects the routes' schemas into an OpenAPI document, which `app.swagger()` returns once the app is ready. */
export default fp(
  async (app) => {
    await app.register(swagger, {
      openapi: {
        openapi: '3.1.0',
        info: {
          title: 'Tasks API',
          version: '1.0.0',
          description:
            'A to-do list for each user. Every request carries a JWT, and the user in the path must be the `sub` of that token. ' +
            'Errors are problem details (RFC 9457) with a stable `code`.',
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
              description: 'A JWT whose `sub` is the user.'
            }
          }
        }
      },
      transformObject: (document) => {
        if (!('openapiObject' in document)) return document.swaggerObject
        for (const operation of Object.values(document.openapiObject.paths ?? {}).map(
          (item) => item?.patch
        )) {
          // The plugin takes every body for required.
          const body = operation?.requestBody
          if (operation?.operationId === BODY_IS_OPTIONAL && body && 'content' in body) body.required = false
        }
        return document.openapiObject
      },
      // The schemas' own names instead of def-0, def-1, …: SDK generators name their types after them.
      refResolver: {
        buildLocalReference: (schema, _base, _fragment, index) => String(schema.$id ?? `def-${index}`)
      }
    })
  },
  { name: 'openapi' }
)
