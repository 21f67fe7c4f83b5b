import { defineConfig } from 'orval'

export default defineConfig({
  tasks: {
    input: '../../openapi.json',
    output: {
      target: 'generated/orval.ts',
      client: 'fetch',
      // Without this the functions take neither Idempotency-Key nor If-Match.
      headers: true,
      override: { mutator: { path: './orval-fetch.ts', name: 'orvalFetch', extension: '.js' } }
    }
  }
})
