import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildApp } from '../src/app.js'
import { loadConfig } from '../src/config.js'

// npm run openapi: writes openapi.json.
const directory = mkdtempSync(join(tmpdir(), 'tasks-openapi-'))
const app = await buildApp(loadConfig({ DATA_DIR: directory, LOG_LEVEL: 'warn' }))
writeFileSync('openapi.json', `${JSON.stringify(app.swagger(), null, 2)}\n`)
await app.close()
rmSync(directory, { recursive: true })
