import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, type JWK } from 'jose'
import Provider from 'oidc-provider'
import type { Test } from './tap.js'

export const AUDIENCE = 'https://tasks.example.com'

export interface OidcIssuer {
  url: string
  /** How often the keys were asked for. */
  keyRequests: number
  /** Signs with a new key from now on. The keys before it are gone. */
  rotate(alg: string): Promise<void>
  /**
   * An access token of the client `alice`, got over HTTP as a client gets it.
   *
   * @param resource the service that the token is for; undefined gets an opaque token
   */
  token(resource?: string): Promise<string>
}

/** A certified OpenID Connect issuer on a port of its own, which ends with the test. */
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
