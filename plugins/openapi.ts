import swagger from '@fastify/swagger'
import fp from 'fastify-plugin'

/** The one body that may be left out. */
const OPTIONAL_BODY = '#/components/schemas/SetCompletion'

interface OpenapiObject {
  paths: Record<string, Record<string, Operation>>
}

interface Operation {
  requestBody?: { required: boolean; content: { 'application/json': { schema: { $ref: string } } } }
}

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
        const { paths } = (document as { openapiObject: OpenapiObject }).openapiObject
        for (const { requestBody } of Object.values(paths).flatMap((path) => Object.values(path))) {
          // @fastify/swagger calls every body required.
          if (requestBody?.content['application/json'].schema.$ref === OPTIONAL_BODY)
            requestBody.required = false
        }
        return (document as { openapiObject: object }).openapiObject
      },
      // The schemas' own names instead of def-0, def-1, …: SDK generators name their types after them.
      refResolver: {
        buildLocalReference: (schema, _base, _fragment, index) => String(schema.$id ?? `def-${index}`)
      }
    })
  },
  { name: 'openapi' }
)
