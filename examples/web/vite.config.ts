import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

const issuer = `http://127.0.0.1:${process.env.ISSUER_PORT ?? 3002}`

export default defineConfig({
  plugins: [react()],
  server: {
    host: '127.0.0.1',
    strictPort: true,
    // The issuer answers under the page's own origin, so that the session cookie is not a third-party cookie.
    // In production a reverse proxy does the same. The API stays where it is: it needs no cookie.
    proxy: { '/api/auth': issuer }
  }
})
