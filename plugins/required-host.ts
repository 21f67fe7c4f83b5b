import fp from 'fastify-plugin'
import { BadRequest } from './errors/catalogue.js'

/** Refuses HTTP/1.1 without a Host (RFC 9112, section 3.2). Node's own refusal has no body and no headers. */
export default fp(
  async (app) => {
    app.addHook('onRequest', (request, reply, done) => {
      const { headers, httpVersion } = request.raw
      // HTTP/1.0 does not require a Host.
      if (headers.host !== undefined || httpVersion !== '1.1') return done()
      reply.header('Connection', 'close')
      done(new BadRequest('A request of HTTP/1.1 needs a Host.'))
    })
  },
  { name: 'required-host' }
)
