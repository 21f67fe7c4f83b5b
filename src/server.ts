import { limitLookups } from './lookups.js'
import { hookImports } from './quick-imports.js'
import { keepTicksFast } from './quick-ticks.js'

keepTicksFast()
limitLookups()
// A static import of the rest would be resolved before this call.
hookImports()
await import('./serve.js')
