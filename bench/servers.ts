import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../test/support/postgres-server.js'
import { JWT_SECRET } from './dataset.js'

const here = import.meta.dirname
const START_MS = 30_000
const STOP_MS = 10_000

/** An HTTP server to measure. */
export interface ServerKind {
  label: string
  /** The arguments of Node. */
  args: string[]
  /** Number of connections to PostgreSQL. */
  pool: number
  /** Further environment variables. */
  env?: Record<string, string>
}

const SERVICE = join(here, '..', 'dist', 'src', 'server.js')
export const DEFAULT_POOL = 10

const byHand = (pool: number): ServerKind => ({
  label: `by hand, pool of ${pool}`,
  args: [join(here, 'by-hand.mjs')],
  pool
})

/**
 * The service beside the hand-written server. With a collector: the service with fewer and with more observability features.
 *
 * @param compare the folder of another checkout
 * @param collector the URL that receives traces
 */
export function knownServers(pool: number, compare?: string, collector?: string): Record<string, ServerKind> {
  const service = (label: string, env = {}) => ({ label, args: [SERVICE], pool, env })
  const ours = service('this service')
  const other = compare !== undefined && { compare: otherCheckout(compare, pool) }
  if (collector === undefined) {
    const usualPool = pool !== DEFAULT_POOL && { 'node-http-10': byHand(DEFAULT_POOL) }
    return { ours, 'node-http': byHand(pool), ...usualPool, ...other }
  }
  const traced = (share: string) => ({
    OTEL_EXPORTER_OTLP_ENDPOINT: collector,
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: share
  })
  return {
    bare: {
      label: 'metrics and logs off',
      args: ['--import', join(here, 'no-metrics.mjs'), SERVICE],
      pool,
      env: { LOG_LEVEL: 'silent' }
    },
    'log-requests': service('with LOG_REQUESTS', { LOG_REQUESTS: 'true' }),
    'traced-10': service('a tenth traced', traced('0.1')),
    'traced-all': service('all traced', traced('1')),
    ours,
    ...other
  }
}

function otherCheckout(directory: string, pool: number): ServerKind {
  const file = resolve(directory, 'dist', 'src', 'server.js')
  if (!existsSync(file)) throw new Error(`--compare: there is no ${file}; run "npm run build" there`)
  return { label: 'the other checkout', args: [file], pool }
}

export interface RunningServer {
  url: string
  pid: number
  /** Rejects with the end of the server's output if it exits by itself. */
  failed: Promise<never>
  stop(): Promise<void>
}

/**
 * Starts a server as in production, and waits until it answers.
 *
 * @throws Error with the end of its output if it exits or does not answer in time
 */
export async function startServer(
  name: string,
  { args, pool, env }: ServerKind,
  databaseUrl: string
): Promise<RunningServer> {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), 'tasks-bench-'))
  const logFile = join(directory, 'log')
  // A file, as in production. A pipe would make this process read during the measurement.
  const log = openSync(logFile, 'w')
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', log, log],
    // Only these settings, so that two machines measure the same.
    env: {
      PATH: process.env.PATH,
      HOME: directory,
      NODE_ENV: 'production',
      LOG_LEVEL: 'info',
      PORT: String(port),
      OPS_PORT: String(await freePort()),
      DATABASE_URL: databaseUrl,
      DATABASE_POOL_MAX: String(pool),
      JWT_SECRET,
      ...env
    }
  })
  closeSync(log)
  const failed = new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => {
      const end = readFileSync(logFile, 'utf8').slice(-5_000)
      reject(new Error(`${name} ended (${signal ?? code}). It wrote:\n${end}`))
    })
  })
  // After the start an exit is no error, for example by stop().
  failed.catch(() => {})
  const server = {
    url: `http://127.0.0.1:${port}`,
    pid: child.pid as number,
    failed,
    async stop() {
      await ended(child)
      rmSync(directory, { recursive: true, force: true })
    }
  }
  try {
    await Promise.race([answers(server.url), failed])
  } catch (error) {
    await server.stop()
    throw error
  }
  return server
}

async function answers(url: string): Promise<void> {
  const end = Date.now() + START_MS
  while (Date.now() < end) {
    try {
      await fetch(`${url}/api/nobody/tasks`)
      return
    } catch {
      await sleep(50)
    }
  }
  throw new Error(`nothing answers at ${url} after ${START_MS / 1000} s`)
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const exit = new Promise((done) => child.once('exit', done))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
  await exit
  clearTimeout(timer)
}
