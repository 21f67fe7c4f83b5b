import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
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
  /** The program and its arguments. */
  command: string[]
  /** Number of connections to PostgreSQL. The peers have 10, except the hand-written one. */
  pool?: number
  /** Further environment variables. */
  env?: Record<string, string>
  /** The reason why this machine cannot run it; undefined if it can. */
  missing?(): string | undefined
}

const node = process.execPath
const peer = (file: string) => join(here, 'peers', file)
const bun = join(here, 'node_modules', 'bun', 'bin', 'bun.exe')
// Debian's own Python, because only it has Debian's packages. A version manager may put another one first in PATH.
const python = '/usr/bin/python3'

export const SERVERS = {
  ours: { label: 'this service', command: [node, join(here, '..', 'dist', 'src', 'server.js')] },
  'node-http': {
    label: 'node:http + postgres.js, by hand',
    command: [node, peer('node-http-postgres.mjs')]
  },
  express: { label: 'Express + pg + jsonwebtoken + zod', command: [node, peer('express.mjs')] },
  hono: { label: 'Hono + drizzle', command: [node, peer('hono.mjs')] },
  nestjs: {
    label: 'NestJS on Fastify + TypeORM',
    command: [node, '--import', import.meta.resolve('tsx'), peer('nestjs.ts')]
  },
  fastapi: {
    label: 'FastAPI + SQLAlchemy + asyncpg',
    command: [python, peer('fastapi-sqlalchemy.py')],
    missing: () =>
      spawnSync(python, ['-c', 'import fastapi, sqlalchemy, asyncpg, jose, uvicorn']).status === 0
        ? undefined
        : 'install python3-fastapi python3-sqlalchemy python3-asyncpg python3-jose uvicorn (Debian or Ubuntu)'
  },
  bun: {
    label: 'Bun.serve + Bun SQL, by hand',
    command: [bun, peer('bun.mjs')],
    missing: () =>
      spawnSync(bun, ['--version']).status === 0
        ? undefined
        : 'the npm package bun has no binary here that runs (its install script fetches it)'
  }
} satisfies Record<string, ServerKind>

/** The service with fewer and with more observability features. */
export function observedServers(collector: string): Record<string, ServerKind> {
  const service = SERVERS.ours.command[1] as string
  const traced = (share: string) => ({
    OTEL_EXPORTER_OTLP_ENDPOINT: collector,
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: share
  })
  return {
    bare: {
      label: 'metrics and logs off',
      command: [node, '--import', join(here, 'no-metrics.mjs'), service],
      env: { LOG_LEVEL: 'silent' }
    },
    'log-requests': {
      label: 'with LOG_REQUESTS',
      command: [node, service],
      env: { LOG_REQUESTS: 'true' }
    },
    'traced-10': { label: 'a tenth traced', command: [node, service], env: traced('0.1') },
    'traced-all': { label: 'all traced', command: [node, service], env: traced('1') }
  }
}

/** The service as built in another checkout. */
export function otherCheckout(directory: string): ServerKind {
  const file = resolve(directory, 'dist', 'src', 'server.js')
  if (!existsSync(file)) throw new Error(`--compare: there is no ${file}; run "npm run build" there`)
  return { label: 'the other checkout', command: [node, file] }
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
  { command: [program = '', ...args], pool = 10, env }: ServerKind,
  databaseUrl: string
): Promise<RunningServer> {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), 'tasks-bench-'))
  const logFile = join(directory, 'log')
  // A file, as in production. A pipe would make this process read during the measurement.
  const log = openSync(logFile, 'w')
  const child = spawn(program, args, {
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
      TSX_TSCONFIG_PATH: peer('tsconfig.json'),
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
