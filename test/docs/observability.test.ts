import { generateKeyPairSync } from 'node:crypto'
import { clientOf, startApp } from '../support/api.js'
import { startKeyServer } from '../support/key-server.js'
import { codeOf, rowsOf } from '../support/markdown.js'
import { scrape } from '../support/metrics.js'
import t from '../support/tap.js'

t.test('the table has the metrics of /metrics, with their types and labels', async (t) => {
  const { publicKey } = generateKeyPairSync('ed25519')
  const server = await startKeyServer(t, [publicKey.export({ format: 'jwk' })])
  const app = await startApp(t, 'postgres', { JWT_SECRET: '', JWKS_URL: server.url })
  await (await clientOf(app, 'alice'))('GET')

  const types = [...(await app.metrics.metrics()).matchAll(/^# TYPE (\w+) (\w+)$/gm)]
  const samples = [...(await scrape(app)).keys()]
  const labelsOf = (name: string) => {
    const sample = samples.find((sample) => sample.replace(/(_count)?(\{.*)?$/, '') === name)
    return [...(sample ?? '').matchAll(/(\w+)="/g)].map(([, label]) => label as string)
  }
  const there = types.flatMap(([, name = '', type]) =>
    /^(process|nodejs)_/.test(name) ? [] : [[name, type, labelsOf(name).join()]]
  )
  const documented = rowsOf('docs/observability.md', ['metric', 'type', 'labels', 'meaning']).map(
    ([name, type, labels]) => [codeOf(name)[0], type, codeOf(labels).join()]
  )
  t.strictSame(documented.sort(), there.sort())
})

t.test("the table has the metric's reasons of a 503", async (t) => {
  const app = await startApp(t)
  const inMetric = [...(await scrape(app)).keys()].flatMap(
    (sample) => /^http_requests_shed_total\{reason="(\w+)"\}$/.exec(sample)?.[1] ?? []
  )
  const documented = rowsOf('docs/observability.md', ['`reason`', 'what happened', 'look at'])
  t.strictSame(documented.map(([reason]) => codeOf(reason)[0]).sort(), inMetric.sort())
})
