import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { clientOf, startApp } from '../support/api.js'
import { hasProgram, PROGRAMS } from '../support/debian.js'
import { ROOT } from '../support/root.js'
import t from '../support/tap.js'

function promtool(args: string[], input = '') {
  const { status, stdout, stderr } = spawnSync('promtool', args, {
    input,
    cwd: join(ROOT, 'deploy/prometheus'),
    env: { PATH: PROGRAMS },
    encoding: 'utf8'
  })
  return { status, told: stdout + stderr }
}

t.test('promtool accepts the metrics, the scrape configuration and the rules', async (t) => {
  if (!hasProgram(t, 'promtool', 'prometheus')) return
  const app = await startApp(t)
  const alice = await clientOf(app, 'alice')
  await alice('POST', '', { title: 'a' })
  await alice('GET')
  const metrics = await app.metrics.metrics()
  t.strictSame(promtool(['check', 'metrics'], metrics), { status: 0, told: '' })
  t.not(
    promtool(['check', 'metrics'], metrics.replaceAll('_total', '')).status,
    0,
    'it would find a wrong name'
  )
  for (const args of [
    ['check', 'config', 'prometheus.yaml'],
    ['check', 'rules', 'alerts.yaml'],
    ['test', 'rules', 'alerts.test.yaml']
  ]) {
    const { status, told } = promtool(args)
    t.equal(status, 0, `${args.join(' ')}: ${told}`)
  }
})
