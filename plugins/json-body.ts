import { isUtf8 } from 'node:buffer'
import fp from 'fastify-plugin'
import { BadRequest, UnsupportedMediaType } from '../src/errors.js'

/** JSON is the only body. An empty one is none, whatever its Content-Type: many clients send the header always. */
export default fp(
  async (app) => {
    const parseJson = app.getDefaultJsonParser('remove', 'remove')
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
      if (body.length === 0) return done(null, undefined)
      // Node would silently replace what it cannot decode, and the client would not get back what it sent.
      if (!isUtf8(body as Buffer))
        return done(new BadRequest('The request body is not valid UTF-8.'), undefined)
      void parseJson(request, body.toString(), done)
    })
    app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => {
      done(body.length === 0 ? null : new UnsupportedMediaType(), undefined)
    })
  },
  { name: 'json-body' }
)
