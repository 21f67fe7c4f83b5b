import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { freePort } from './postgres-server.js'
import { sign } from './sign.js'
import type { Test } from './tap.js'

const SERVER = fileURLToPath(new URL('../../src/server.js', import.meta.url))

/** Limit for every wait. It is generous, so that a slow machine does not fail. */
const PATIENCE_MS = 150_000

/** The log line of an uncaught error in the service, and Node's output after one. */
const UNCAUGHT = /an error that nothing caught|^Node\.js v\d/m

/** @throws Error if a process with this output had an uncaught error */
function checkCaught(written: string): void {
  if (UNCAUGHT.test(written)) throw new Error(`an error that nothing caught:\n${written}`)
}

export interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
  milliseconds: number
}

export interface Service {
  process: ChildProcess
  api: string
  ops: string
  /** The output so far. */
  out(): string
  err(): string
  /** Resolves when `/ready` answers 200. Rejects if the process ends first. */
  ready(): Promise<Service>
  /** Resolves when the process has ended, with the duration from this call on. */
  exit(): Promise<Exit>
  /** Sends a signal to this one process and waits for its end. */
  stop(signal?: NodeJS.Signals): Promise<Exit>
}

export interface ProcessOptions {
  /** The working folder; a new empty one by default. */
  cwd?: string
  /** Another program for Node instead of the compiled server. */
  file?: string
  /** A command that runs the rest of its arguments in the same process. */
  within?: string[]
}

/**
 * Starts the service as a process on free ports, with only this environment. It ends with the test. If it ends before that,
 * and the test has not called `exit` or `stop`, the test fails.
 */
export async function startProcess(
  t: Pick<Test, 'teardown'>,
  env: Record<string, string>,
  { cwd = emptyFolder(t), file = SERVER, within = [] }: ProcessOptions = {}
): Promise<Service> {
  const { PORT = String(await freePort()), OPS_PORT = String(await freePort()) } = env
  const command = [...within, process.execPath, file]
  const child = spawn(command[0] as string, command.slice(1), {
    cwd,
    env: { PATH: process.env.PATH, LOG_LEVEL: 'warn', ...env, PORT, OPS_PORT },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  let out = ''
  let err = ''
  child.stdout.on('data', (chunk) => {
    out += chunk
  })
  child.stderr.on('data', (chunk) => {
    err += chunk
  })
  // 'close' comes after the last output.
  const closed = once(child, 'close')
  const ended = () => child.exitCode !== null || child.signalCode !== null
  let isEndExpected = false
  t.teardown(async () => {
    if (!ended()) isEndExpected = child.kill('SIGKILL')
    await closed
    checkCaught(out + err)
    const { exitCode, signalCode } = child
    if (!isEndExpected) throw new Error(`ended by itself (${signalCode ?? exitCode}):\n${out}${err}`)
  })

  const service: Service = {
    process: child,
    api: `http://127.0.0.1:${PORT}`,
    ops: `http://127.0.0.1:${OPS_PORT}`,
    out: () => out,
    err: () => err,
    async ready() {
      const isReady = async () => ended() || (await statusOf(`${service.ops}/ready`)) === 200
      await until(isReady).catch((error) => {
        throw new Error(`${error.message}\n${out}${err}`)
      })
      if (ended()) throw new Error(`ended before it was ready:\n${out}${err}`)
      return service
    },
    async exit() {
      isEndExpected = true
      const from = performance.now()
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`did not end:\n${out}${err}`)), PATIENCE_MS)
      })
      await Promise.race([closed, late])
      clearTimeout(timer)
      return { code: child.exitCode, signal: child.signalCode, milliseconds: performance.now() - from }
    },
    stop(signal = 'SIGTERM') {
      const exit = service.exit()
      child.kill(signal)
      return exit
    }
  }
  return service
}

/** Runs one of the project's scripts to its end, in this folder and with only this environment. */
export async function runScript(
  cwd: string,
  script: string,
  env: Record<string, string>,
  args: string[] = []
) {
  const file = fileURLToPath(new URL(`../../scripts/${script}.js`, import.meta.url))
  const child = spawn(process.execPath, [file, ...args], {
    cwd,
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: PATIENCE_MS
  })
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  checkCaught(err)
  return { code: child.exitCode, out, err }
}

/** Creates a folder outside of this project, and removes it with the test. */
export function emptyFolder(t: Pick<Test, 'teardown'>): string {
  const directory = mkdtempSync(join(tmpdir(), 'tasks-api-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** The status of a GET; undefined if the connection fails. */
export async function statusOf(url: string): Promise<number | undefined> {
  try {
    const response = await fetch(url)
    await response.arrayBuffer()
    return response.status
  } catch {
    return undefined
  }
}

/** Polls until the condition is true. */
export async function until(
  condition: () => Promise<boolean> | boolean,
  milliseconds = PATIENCE_MS
): Promise<void> {
  const end = performance.now() + milliseconds
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${milliseconds} ms: ${condition}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Sends requests of alice over real HTTP, with a token signed with `SECRET`. */
export async function aliceAt(service: Service) {
  const authorization = `Bearer ${await sign({ sub: 'alice' })}`
  return (method: string, path = '', body?: object) =>
    fetch(`${service.api}/api/alice/tasks${path}`, {
      method,
      headers: { authorization, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) })
    })
}
