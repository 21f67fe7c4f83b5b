import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { validate } from 'dockerfile-utils'
import { Deployment } from 'kubernetes-models/apps/v1/Deployment'
import { Job } from 'kubernetes-models/batch/v1/Job'
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget'
import { Service } from 'kubernetes-models/v1/Service'
import { parse } from 'yaml'
import { START_MS } from '../../db/migrate.js'
import { loadConfig } from '../../src/config.js'
import { READY_MS } from '../../src/ops.js'
import { CLOSE_MS } from '../../src/stop-on-signal.js'
import { hasProgram } from '../support/debian.js'
import { blocksOf } from '../support/markdown.js'
import { ROOT } from '../support/root.js'
import t from '../support/tap.js'

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const kubernetes = (file: string) => parse(read(`deploy/kubernetes/${file}.yaml`))

const dockerfile = read('Dockerfile')
const compose = parse(read('compose.yaml'))
const deployment = kubernetes('deployment')
const job = kubernetes('migrate')
const budget = kubernetes('pod-disruption-budget')
const service = kubernetes('service')
const UNITS = ['tasks-api@.service', 'tasks-api-migrate.service']
/** The settings and variables of the service's unit. */
const unit = Object.fromEntries(
  [...read(`deploy/systemd/${UNITS[0]}`).matchAll(/^(?!#|ExecStart=)(\w+)=(.*)$|\b([A-Z_]+)=(\S+)/gm)].map(
    ([, name, value, variable, text]) => [name ?? variable, value ?? text]
  )
)
/** PostgreSQL's default. */
const MAX_CONNECTIONS = 100

/** The service's configuration in the image's environment. */
const config = loadConfig({
  ...Object.fromEntries([...dockerfile.matchAll(/([A-Z_]+)=(\S+)/g)].map(([, name, value]) => [name, value])),
  DATABASE_URL: 'postgres://u:p@h/d',
  JWT_SECRET: 'x'.repeat(32)
})
const pod = deployment.spec.template.spec
const [container] = pod.containers

/** Converts Kubernetes' `512Mi` and Compose's `512m` into MiB. */
const mebibytes = (text: string) => Number(/^(\d+)(Mi|m)$/.exec(text)?.[1])

t.test('the linter finds no fault in the Dockerfile', async (t) => {
  t.strictSame(validate(dockerfile), [])
  t.match(validate(dockerfile.replace('USER ', 'USR ')), [{ message: 'Unknown instruction: USR' }])
})

/** @returns the output of a package's program that found a fault; '' if it ended with code 0 */
function faultsBy(program: string, args: string[]): string {
  try {
    execFileSync(process.execPath, [program, ...args], { cwd: ROOT, encoding: 'utf8', stdio: 'pipe' })
    return ''
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string }
    return stdout + stderr
  }
}

t.test('compose.yaml passes the schema of Compose and the rules of dclint', async (t) => {
  const faults = (file: string) =>
    faultsBy('node_modules/dclint/bin/dclint.cjs', ['--config=.dclintrc.json', '--max-warnings=0', file])
  t.equal(faults('compose.yaml'), '')
  const wrong = join(t.testdir(), 'compose.yaml')
  writeFileSync(wrong, read('compose.yaml').replace('read_only: true', 'read_only: [often]'))
  t.match(faults(wrong), /read_only/)
})

t.test('the manifests pass the schemas of the Kubernetes API', async (t) => {
  const kinds = { Deployment, Job, PodDisruptionBudget, Service }
  const files = readdirSync(join(ROOT, 'deploy/kubernetes')).filter((file) => file !== 'kustomization.yaml')
  const manifests = files.map((file) => kubernetes(file.replace('.yaml', '')))
  t.strictSame(manifests.map(({ kind }) => kind).sort(), Object.keys(kinds))
  const { resources } = kubernetes('kustomization')
  t.strictSame(['migrate.yaml', ...resources].sort(), files.sort(), 'all but the job are applied together')
  for (const manifest of manifests) {
    const Kind = kinds[manifest.kind as keyof typeof kinds]
    t.equal(manifest.apiVersion, new Kind().apiVersion)
    t.doesNotThrow(() => new Kind(manifest).validate(), manifest.kind)
  }
  const wrong = structuredClone(deployment)
  wrong.spec.template.spec.containers[0].ports[0].containerPort = 'api'
  t.throws(() => new Deployment(wrong).validate(), /containerPort must be integer/)

  t.test('no manifest has a field that the API does not know', async (t) => {
    // The schemas allow unknown fields. TypeScript refuses them in a literal.
    const unknownFields = (manifests: { kind: string; apiVersion: string }[]) => {
      const file = join(ROOT, 'dist-test/manifests.check.ts')
      const lines = manifests.map(
        (manifest, index) =>
          `import type { I${manifest.kind} as I${index} } from 'kubernetes-models/${manifest.apiVersion}/${manifest.kind}'
export const m${index}: I${index} = ${JSON.stringify(manifest)}`
      )
      writeFileSync(file, lines.join('\n'))
      const options = ['--noEmit', '--ignoreConfig', '--skipLibCheck', '--strict', '--module', 'nodenext']
      const faults = faultsBy('node_modules/typescript/bin/tsc', [...options, file])
      rmSync(file)
      return faults
    }
    t.equal(unknownFields(manifests), '')
    const wrong = structuredClone(deployment)
    wrong.spec.template.spec.containers[0].readynessProbe = {}
    t.match(unknownFields([wrong]), /readynessProbe/)
  })
})

t.test('ports, paths and times of probes fit the code', async (t) => {
  const { api, ops } = config
  t.match({ api, ops }, { api: { host: '0.0.0.0', port: 3000 }, ops: { host: '0.0.0.0', port: 3001 } })
  t.match(dockerfile, new RegExp(`^EXPOSE ${api.port} ${ops.port}$`, 'm'))
  t.match(dockerfile, new RegExp(`process.env.OPS_PORT \\|\\| ${ops.port}}/live`))
  t.strictSame(
    container.ports.map(({ name, containerPort }: { name: string; containerPort: number }) => [
      name,
      containerPort
    ]),
    [
      ['api', api.port],
      ['operations', ops.port]
    ]
  )
  t.equal(service.spec.ports[0].targetPort, 'api')
  t.equal(deployment.spec.template.metadata.annotations['prometheus.io/port'], String(ops.port))
  for (const [probe, path] of [
    ['startupProbe', '/live'],
    ['livenessProbe', '/live'],
    ['readinessProbe', '/ready']
  ] as const) {
    t.strictSame(container[probe].httpGet, { path, port: 'operations' }, probe)
  }
  const { periodSeconds, failureThreshold } = container.startupProbe
  t.ok(periodSeconds * failureThreshold * 1_000 > START_MS, 'a start ends by itself first')
  t.ok(container.readinessProbe.timeoutSeconds * 1_000 > READY_MS, 'a probe waits longer than /ready itself')
  const published = compose.services.api.ports.map((port: string) => Number(port.split(':').at(-1)))
  t.strictSame(published, [api.port, ops.port])
  for (const port of compose.services.api.ports) t.match(port, /^127\.0\.0\.1:/)
})

t.test("systemd's units pass its own check", async (t) => {
  if (!hasProgram(t, 'systemd-analyze', 'systemd')) return
  /** @param change of the service's unit */
  const faults = (change: (unit: string) => string) => {
    const folder = t.testdir()
    const files = UNITS.map((name) => {
      const unit = read(`deploy/systemd/${name}`).replace('/usr/bin/node', process.execPath)
      writeFileSync(join(folder, name), name.includes('@') ? change(unit) : unit)
      return join(folder, name)
    })
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...files], {
      encoding: 'utf8'
    })
    // It also tells about other units of the machine.
    const lines = stderr.split('\n').filter((line) => line.includes('tasks-api'))
    return [status, ...lines].join('\n')
  }
  t.equal(
    faults((unit) => unit),
    '0'
  )
  t.match(
    faults((unit) => unit.replace('ProtectHome', 'ProtectHouse')),
    /ProtectHouse/
  )
})

t.test("the unit's ports, limits and rights are those of the other deployments", async (t) => {
  t.match(unit, { PORT: '%i', OPS_PORT: '1%i', NODE_ENV: 'production' })
  t.equal(mebibytes(`${unit.MemoryMax}i`), mebibytes(compose.services.api.mem_limit))
  t.match(unit, { DynamicUser: 'yes', ProtectSystem: 'strict', CapabilityBoundingSet: '' })
  t.notMatch(read('deploy/systemd/tasks-api@.service'), /migrate/)
  // The file of settings would win over it.
  t.notMatch(read('deploy/systemd/tasks-api@.service'), /^Environment=/m)
})

t.test('the grace periods are as long as a stop can take', async (t) => {
  const seconds = (config.graceMs + CLOSE_MS) / 1_000
  t.ok(Number(unit.TimeoutStopSec) >= seconds)
  t.ok(pod.terminationGracePeriodSeconds >= container.lifecycle.preStop.sleep.seconds + seconds)
  t.ok(Number.parseInt(compose.services.api.stop_grace_period, 10) >= seconds)
})

t.test('the pools of all replicas fit into max_connections during a rollout', async (t) => {
  const { replicas, strategy } = deployment.spec
  const { database } = config
  if (database.kind !== 'postgres') throw new Error('it is PostgreSQL in production')
  const most = (replicas + strategy.rollingUpdate.maxSurge) * (Number(database.poolMax) + 1)
  t.ok(most < MAX_CONNECTIONS - 10, `${most} connections`)
  t.ok(budget.spec.maxUnavailable < replicas)
  t.strictSame(budget.spec.selector, deployment.spec.selector)
  t.strictSame(service.spec.selector, deployment.spec.selector.matchLabels)
})

t.test('the memory limit is the one that test:deploy tries', async (t) => {
  t.equal(mebibytes(container.resources.limits.memory), mebibytes(compose.services.api.mem_limit))
})

t.test('no container runs as root, writes to its image or has a capability', async (t) => {
  t.match(dockerfile, /^USER [1-9]\d*:[1-9]\d*$/m)
  for (const spec of [pod, job.spec.template.spec]) {
    t.equal(spec.securityContext.runAsNonRoot, true)
    t.strictSame(spec.containers[0].securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] }
    })
  }
  for (const name of ['api', 'migrate']) {
    t.match(compose.services[name], { read_only: true, cap_drop: ['ALL'] }, name)
  }
})

t.test('only the job gets the credentials of the owner', async (t) => {
  t.notMatch(JSON.stringify(pod), /tasks-migrate|MIGRATION/)
  t.strictSame(
    job.spec.template.spec.containers[0].env.map(({ name }: { name: string }) => name),
    ['DATABASE_URL', 'MIGRATION_DATABASE_URL']
  )
})

t.test("compose.yaml's roles are those of the guide", async (t) => {
  const [guide] = blocksOf('docs/roles.md').filter(({ language }) => language === 'sql')
  const statements = (sql = '') =>
    sql
      .replaceAll(/^(--|\\).*$/gm, '')
      .replaceAll(/password ('…'|:'\w+')/g, 'password')
      .split(';')
      .map((statement) => statement.trim())
  t.strictSame(statements(read('deploy/compose/roles.sql')), statements(guide?.code))
})
