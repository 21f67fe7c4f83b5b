// Follows docs/tutorial.md in an empty folder: runs its commands on free ports, and sends the page's requests itself.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
/** Limit for each step. It is generous, so that a slow machine does not fail. */
const PATIENCE_MS = 600_000

const ports = { PAGE_PORT: '5173', PORT: '3000', OPS_PORT: '3001', ISSUER_PORT: '3002' }
const free = Object.fromEntries(
  await Promise.all(Object.keys(ports).map(async (name) => [name, await freePort()]))
)
const here = (text) =>
  Object.entries(ports).reduce((text, [name, port]) => text.replaceAll(`:${port}`, `:${free[name]}`), text)

const tutorial = readFileSync(`${ROOT}docs/tutorial.md`, 'utf8')
const [start, ...commands] = [...tutorial.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, code]) => code)
const printed = /^```text\n(.*?)^```$/ms.exec(tutorial)[1]
const [account] = /\{"email": .*?\}/.exec(tutorial)

const folder = mkdtempSync(join(tmpdir(), 'tasks-tutorial-'))
const began = performance.now()
const example = spawn('bash', ['-ec', start.replace('REPOSITORY_URL', `'${ROOT}'`)], {
  cwd: folder,
  env: { ...process.env, ...free },
  stdio: ['ignore', 'pipe', 'inherit'],
  detached: true
})
let output = ''
example.stdout.on('data', (chunk) => {
  output += chunk
  process.stdout.write(chunk)
})
const exited = new Promise((resolve) => example.once('exit', resolve))

try {
  await until(() => output.includes('Ctrl-C ends'))
  assert.ok(output.includes(here(printed)), `the URLs differ from those in the tutorial:\n${here(printed)}`)

  // Step 2: the page, and its request when the user creates an account.
  const page = here('http://127.0.0.1:5173')
  assert.match(await (await fetch(page)).text(), /<title>Tasks<\/title>/)
  const signUp = await fetch(`${page}/api/auth/sign-up/email`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', origin: page },
    body: JSON.stringify({ ...JSON.parse(account), name: 'Ada' })
  })
  assert.equal(signUp.status, 200)

  // Steps 3 and 4.
  const answers = execFileSync('bash', ['-euc', here(commands.join('\necho\n'))], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: PATIENCE_MS
  })
  console.log(answers)
  assert.equal(answers.match(/"title":"Write a client"/g)?.length, 2, 'the task is created, and listed')
  assert.match(answers, /"status":403/)
  assert.match(answers, /^Write a client: completed at \d{4}-/m)
  console.log(`\nThe tutorial took ${Math.round((performance.now() - began) / 1_000)} seconds.`)

  // Ctrl-C signals npm and every process that it started.
  process.kill(-example.pid, 'SIGINT')
  await exited
  for (const port of Object.values(free)) {
    await assert.rejects(fetch(`http://127.0.0.1:${port}`), `port ${port} still answers after Ctrl-C`)
  }
} finally {
  if (isRunning()) {
    process.kill(-example.pid, 'SIGINT')
    await exited
  }
  rmSync(folder, { recursive: true, force: true })
}

function isRunning() {
  return example.exitCode === null && example.signalCode === null
}

async function until(condition) {
  for (const end = Date.now() + PATIENCE_MS; !condition(); ) {
    assert.ok(isRunning(), 'the example ended')
    assert.ok(Date.now() < end, 'the example does not start')
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** @returns a port that no process listens on */
function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(String(port)))
    })
  })
}
