import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, type JWK } from 'jose'
import Provider from 'oidc-provider'
import type { Test } from './tap.js'

export const AUDIENCE = 'https://tasks.example.com'

export interface OidcIssuer {
  url: string
  /** The number of requests for the keys. */
  keyRequests: number
  /** Replaces all keys by a new one. */
  rotate(alg: string): Promise<void>
  /**
   * Requests an access token for the client `alice` over HTTP.
   *
   * @param resource the audience; undefined gets an opaque token
   */
  token(resource?: string): Promise<string>
}

/** Starts a certified OpenID Connect issuer on a port of its own. It ends with the test. */
export async function startOidcIssuer(t: Test, alg: string): Promise<OidcIssuer> {
  let answer: RequestListener = (_, response) => response.writeHead(503).end()
  let keys = 0
  const server = createServer((request, response) => {
    if (request.url === '/jwks') issuer.keyRequests++
    answer(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  const issuer: OidcIssuer = {
    url,
    keyRequests: 0,
    async rotate(alg) {
      const { privateKey } = await generateKeyPair(alg, { extractable: true })
      const jwk = { ...(await exportJWK(privateKey)), kid: `key-${keys++}`, alg, use: 'sig' }
      answer = new Provider(url, configuration(alg, jwk)).callback()
    },
    async token(resource) {
      const response = await fetch(`${url}/token`, {
        method: 'POST',
        headers: { authorization: `Basic ${btoa('alice:secret')}` },
        body: new URLSearchParams({ grant_type: 'client_credentials', ...(resource && { resource }) })
      })
      if (!response.ok) throw new Error(`the issuer answered ${response.status}: ${await response.text()}`)
      return ((await response.json()) as { access_token: string }).access_token
    }
  }
  await issuer.rotate(alg)
  return issuer
}

const configuration = (alg: string, jwk: JWK) => ({
  jwks: { keys: [jwk] },
  clients: [
    {
      client_id: 'alice',
      client_secret: 'secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: alg
    }
  ],
  enabledJWA: { idTokenSigningAlgValues: [alg] },
  clientDefaults: { id_token_signed_response_alg: alg },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_: unknown, audience: string) => ({
        scope: 'tasks',
        audience,
        accessTokenTTL: 300,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg } }
      })
    }
  }
})
