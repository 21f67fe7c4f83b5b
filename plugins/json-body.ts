import { isUtf8 } from 'node:buffer'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import * as catalogue from './errors/catalogue.js'

/** Accepts only JSON. An empty body counts as no body, because many clients always send a Content-Type. */
export default fp(
  async (app) => {
    const parseJson = app.getDefaultJsonParser('remove', 'remove')
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
      if (body.length === 0) return done(null, undefined)
      if (isEncoded(request)) return done(new catalogue.UnsupportedContentCoding(), undefined)
      // Node would replace bytes that it cannot decode, and the client would not get back the text that it sent.
      if (!isUtf8(body as Buffer))
        return done(new catalogue.BadRequest('The request body is not valid UTF-8.'), undefined)
      void parseJson(request, body.toString(), (error, value) =>
        done(error === null ? null : new catalogue.InvalidJson(), value)
      )
    })
    app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => {
      if (body.length === 0) return done(null, undefined)
      done(
        isEncoded(request) ? new catalogue.UnsupportedContentCoding() : new catalogue.UnsupportedMediaType(),
        undefined
      )
    })
  },
  { name: 'json-body' }
)

/** `identity` stands for no coding: RFC 9110, section 12.5.3. It must not be in this header, but some clients send it. */
function isEncoded({ headers }: FastifyRequest): boolean {
  const codings = (headers['content-encoding'] ?? '').toLowerCase().split(',')
  return codings.some((coding) => !['', 'identity'].includes(coding.trim()))
}
