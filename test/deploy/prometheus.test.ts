import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { exportJWK, generateKeyPair } from 'jose'
import { startApp } from '../support/api.js'
import { startKeyServer } from '../support/key-server.js'
import { scrape } from '../support/metrics.js'
import { ROOT } from '../support/root.js'
import t, { type Test } from '../support/tap.js'

const METRIC = /\b(?:http|auth|database|process|nodejs|log)_\w+/g

async function inMetrics(t: Test): Promise<Set<string>> {
  const { publicKey } = await generateKeyPair('EdDSA')
  const server = await startKeyServer(t, [await exportJWK(publicKey)])
  const app = await startApp(t, 'postgres', { JWT_SECRET: '', JWKS_URL: server.url })
  await app.inject('/api/alice/tasks')
  // Histograms without labels have samples from the start, the others after a request.
  return new Set([...(await scrape(app)).keys()].map((sample) => sample.replace(/\{.*/, '')))
}

t.test('every metric in the dashboard and the alert rules exists', async (t) => {
  const there = await inMetrics(t)
  for (const [file, least] of [
    ['deploy/grafana/dashboard.json', 20],
    ['deploy/prometheus/alerts.yaml', 8],
    ['deploy/prometheus/alerts.test.yaml', 8]
  ] as const) {
    const named = new Set(readFileSync(join(ROOT, file), 'utf8').match(METRIC))
    t.ok(named.size >= least, `${file} names ${named.size}`)
    for (const name of named) t.ok(there.has(name), `${file}: ${name}`)
  }
})

t.test('the dashboard shows every metric of the service', async (t) => {
  const dashboard = readFileSync(join(ROOT, 'deploy/grafana/dashboard.json'), 'utf8')
  for (const name of await inMetrics(t)) {
    const family = name.replace(/_(bucket|sum|count)$/, '')
    if (/^(http|auth|database|log)_/.test(name)) t.ok(dashboard.includes(family), name)
  }
})
