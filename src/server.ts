import { hookImports } from './quick-imports.js'

// A static import of the rest would be resolved before this call.
hookImports()
await import('./serve.js')
