// npm run example: starts the issuer, the API with its embedded database, and the page. It stops all three together.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const ROOT = fileURLToPath(new URL('../..', import.meta.url))

const { PORT = '3000', OPS_PORT = '3001', ISSUER_PORT = '3002', PAGE_PORT = '5173' } = process.env
const { DATA_DIR = `${HERE}.data`, LOG_LEVEL = 'warn' } = process.env

const at = (port) => `http://127.0.0.1:${port}`
const PAGE_URL = at(PAGE_PORT)
const AUDIENCE = 'tasks-api'

/** Timeout for the start of a part, in milliseconds. */
const START_MS = 120_000
/** Timeout for the end of a part, in milliseconds. The API waits 10 seconds for requests in flight. */
const STOP_MS = 20_000

const children = new Set()
let isStopping = false

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => stop(0))

try {
  await checkPorts({ PORT, OPS_PORT, ISSUER_PORT, PAGE_PORT })
  await Promise.all([install(ROOT, 'the service'), install(HERE, 'the example')])
  await finish('node', ['scripts/prestart.mjs'], ROOT)
  await finish('npm', ['run', '-s', 'generate'], HERE)

  const issuer = start('issuer', ['issuer/server.js'], {
    ISSUER_PORT,
    PAGE_URL,
    JWT_AUDIENCE: AUDIENCE,
    DATA_DIR: `${DATA_DIR}/issuer`
  })
  await answers(issuer, `${at(ISSUER_PORT)}/api/auth/jwks`)

  const api = start('API', [`${ROOT}dist/src/server.js`], {
    PORT,
    OPS_PORT,
    DATA_DIR: `${DATA_DIR}/api`,
    JWKS_URL: `${at(ISSUER_PORT)}/api/auth/jwks`,
    JWT_ISSUER: PAGE_URL,
    JWT_AUDIENCE: AUDIENCE,
    CORS_ORIGIN: `${PAGE_URL},${PAGE_URL.replace('127.0.0.1', 'localhost')}`,
    LOG_LEVEL
  })
  const page = start('page', ['node_modules/vite/bin/vite.js', '--port', PAGE_PORT, '--logLevel', 'warn'], {
    ISSUER_PORT,
    VITE_API_URL: at(PORT)
  })
  await answers(api, `${at(OPS_PORT)}/ready`)
  await answers(page, PAGE_URL)

  console.log(`
Page    ${PAGE_URL}
API     ${at(PORT)}
Docs    ${at(OPS_PORT)}/docs
Issuer  ${at(ISSUER_PORT)}/api/auth/jwks

Open the page and create an account. Ctrl-C ends all of it.
`)
} catch (error) {
  if (!isStopping) console.error(`\n${error.message}`)
  await stop(1)
}

/** @throws Error with the port that is in use, and the variable for another one */
async function checkPorts(ports) {
  for (const [variable, port] of Object.entries(ports)) {
    await new Promise((resolve, reject) => {
      const server = createServer()
      server.once('error', ({ code, message }) =>
        reject(
          new Error(
            code === 'EADDRINUSE'
              ? `Port ${port} is in use. End the program that uses it, or choose another: ${variable}=${Number(port) + 1000} npm run example`
              : `${variable}: ${message}`
          )
        )
      )
      server.listen({ port: Number(port), host: '127.0.0.1' }, () => server.close(resolve))
    })
  }
}

async function install(folder, name) {
  if (existsSync(`${folder}/node_modules/.package-lock.json`)) return
  console.log(`Installing the packages of ${name}. This takes a minute, once.`)
  await finish('npm', ['ci', '--include=dev', '--prefer-offline', '--no-audit', '--no-fund'], folder)
}

/** Runs a command to its end. */
async function finish(command, args, cwd) {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'], detached: true })
  children.add(child)
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  children.delete(child)
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} in ${cwd} failed.`)
}

/**
 * Starts a part in a process group of its own, so that Ctrl-C signals only this process. This one then stops each
 * part once.
 */
function start(name, args, env) {
  // Without the environment's settings of another service.
  const { DATABASE_URL, MIGRATION_DATABASE_URL, JWT_SECRET, HOST, OPS_HOST, ...rest } = process.env
  const child = spawn(process.execPath, args, {
    cwd: HERE,
    env: { ...rest, NODE_ENV: 'development', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true
  })
  children.add(child)
  Object.assign(child, { name, output: '', isReady: false })
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      if (child.isReady) process.stderr.write(chunk)
      else child.output += chunk
    })
  }
  child.once('close', (code, signal) => {
    if (isStopping) return
    console.error(`\n${child.output}\nThe ${name} ended (${signal ?? code}).`)
    void stop(1)
  })
  return child
}

/** Waits until a part answers with 200. */
async function answers(child, url) {
  for (const end = Date.now() + START_MS; Date.now() < end && !isStopping; ) {
    const response = await fetch(url).catch(() => undefined)
    await response?.body?.cancel()
    if (response?.ok) {
      child.isReady = true
      return
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`The ${child.name} does not answer at ${url}.\n${child.output}`)
}

async function stop(code) {
  if (isStopping) return
  isStopping = true
  const running = [...children].filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null)
  const ended = running.map((child) => new Promise((resolve) => child.once('close', resolve)))
  const signalAll = (signal) => {
    for (const { pid, exitCode, signalCode } of running) {
      if (exitCode === null && signalCode === null) process.kill(-pid, signal)
    }
  }
  signalAll('SIGTERM')
  setTimeout(() => signalAll('SIGKILL'), STOP_MS).unref()
  await Promise.all(ended)
  process.exit(code)
}
