import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { JWK } from 'jose'
import type { Test } from './tap.js'

export interface KeyServer {
  url: string
  /** The served keys. A test adds and removes them. */
  keys: JWK[]
  /** The path of every request, in order. */
  requests: string[]
  /** The number of connections so far. */
  connections: number
  /** How it answers; `serve` unless a test says otherwise. */
  answer: (response: ServerResponse, server: KeyServer) => void
  /** Closes the port, and every connection with it. */
  stop(): Promise<void>
  /** Opens the same port again. */
  start(): Promise<void>
}

export const serve: KeyServer['answer'] = (response, { keys }) => {
  response.setHeader('Content-Type', 'application/json')
  response.end(JSON.stringify({ keys }))
}

/** Ways in which a key server fails. */
export const failures: Record<string, KeyServer['answer']> = {
  'answers 500': (response) => response.writeHead(500).end('oops'),
  'answers 404': (response) => response.writeHead(404).end('{"keys":[]}'),
  'sends no JSON': (response) => response.end('<h1>Welcome</h1>'),
  'sends no key set': (response) => response.end('[]'),
  'redirects elsewhere': (response, { url }) =>
    response.writeHead(302, { Location: `${new URL('/elsewhere', url)}` }).end(),
  'cuts the connection': (response) => response.destroy()
}

export const hang: KeyServer['answer'] = () => {}

/** Starts a key server on a port of 127.0.0.1. It ends with the test. */
export async function startKeyServer(t: Test, keys: JWK[] = []): Promise<KeyServer> {
  const http = createServer((request, response) => {
    server.requests.push(request.url as string)
    server.answer(response, server)
  })
  let port = 0
  const server: KeyServer = {
    url: '',
    keys,
    requests: [],
    connections: 0,
    answer: serve,
    start: () => new Promise((resolve) => http.listen(port, '127.0.0.1', resolve)),
    stop: () =>
      new Promise((resolve) => {
        http.close(() => resolve())
        http.closeAllConnections()
      })
  }
  http.on('connection', () => server.connections++)
  await server.start()
  port = (http.address() as AddressInfo).port
  server.url = `http://127.0.0.1:${port}/jwks.json`
  t.teardown(() => server.stop())
  return server
}
