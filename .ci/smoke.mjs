// Starts the service with the README's command, on free ports and with an empty data folder. Then sends requests with the
// URL and the token that the start prints.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const data = mkdtempSync(join(tmpdir(), 'tasks-smoke-'))
const server = spawn('npm', ['start'], {
  env: { ...process.env, PORT: '0', OPS_PORT: '0', DATA_DIR: data },
  stdio: ['ignore', 'pipe', 'inherit'],
  detached: true
})
let output = ''
server.stdout.on('data', (chunk) => {
  output += chunk
})
const exited = new Promise((resolve) => server.once('exit', resolve))

try {
  const [, token, tasks] = await printed(/Bearer ([^']+)' (http\S+)/)
  const [, docs] = await printed(/Docs\s+(http\S+)/)
  const call = async (method, url, body) => {
    const headers = { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) }
    const response = await fetch(url, { method, headers, body: body && JSON.stringify(body) })
    return [response.status, response.status === 204 ? undefined : await response.json()]
  }
  assert.deepEqual(await call('GET', tasks), [200, []])
  const [created, task] = await call('POST', tasks, { title: 'Smoke' })
  assert.equal(created, 201)
  assert.deepEqual(await call('GET', `${tasks}/${task.id}`), [200, task])
  assert.equal((await call('PATCH', `${tasks}/${task.id}/complete`))[1].completed, true)
  assert.equal((await call('PUT', `${tasks}/${task.id}`, { title: 'Fire' }))[1].title, 'Fire')
  assert.equal((await call('DELETE', `${tasks}/${task.id}`))[0], 204)
  assert.equal((await call('GET', tasks.replace('alice', 'bob')))[0], 403)
  assert.equal((await fetch(tasks)).status, 401)
  assert.equal((await fetch(docs)).status, 200)
  for (const probe of ['live', 'ready', 'metrics', 'openapi.json']) {
    assert.equal((await fetch(new URL(probe, docs))).status, 200, probe)
  }
  // Ctrl-C signals npm and the server alike.
  process.kill(-server.pid, 'SIGINT')
  await exited
  await assert.rejects(fetch(tasks), 'the server still answers after SIGINT')
  console.log('smoke test passed')
} finally {
  if (server.exitCode === null && server.signalCode === null) process.kill(-server.pid, 'SIGKILL')
  rmSync(data, { recursive: true, force: true })
}

/** Waits until the server has printed text that matches the pattern. */
async function printed(pattern) {
  for (let waited = 0; waited < 60_000; waited += 50) {
    const match = pattern.exec(output)
    if (match) return match
    assert.equal(server.exitCode, null, `the server ended:\n${output}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  assert.fail(`no ${pattern} within a minute in:\n${output}`)
}
