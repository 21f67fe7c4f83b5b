// Follows docs/sdks.md: runs its commands and its code in empty folders. They use the packages of this folder, at the
// versions of its lock file, so nothing is installed.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const PAGE = fileURLToPath(new URL('../../../docs/sdks.md', import.meta.url))
const PACKAGES = fileURLToPath(new URL('../node_modules', import.meta.url))
const COMPILER_OPTIONS = [
  '--strict',
  '--noEmit',
  '--target',
  'es2023',
  '--module',
  'esnext',
  '--moduleResolution',
  'bundler'
]

/** The sections of the page with commands and code. */
export const sections = readFileSync(PAGE, 'utf8')
  .split(/^## /m)
  .map((text) => ({
    title: text.slice(0, text.indexOf('\n')),
    commands: /```sh\n(.*?)```/s.exec(text)?.[1],
    code: /```ts\n(.*?)```/s.exec(text)?.[1]
  }))
  .filter(({ code }) => code)

export async function follow(
  { commands = '', code = '' }: (typeof sections)[number],
  folder: string,
  { apiUrl, opsUrl, token }: { apiUrl: string; opsUrl: string; token: string }
) {
  mkdirSync(folder)
  symlinkSync(PACKAGES, join(folder, 'node_modules'))
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  const execute = (command: string, args: string[]) =>
    execFileSync(command, args, { cwd: folder, encoding: 'utf8' })

  const generate = commands.replaceAll(/^npm install .*\n/gm, '').replaceAll('http://127.0.0.1:3001', opsUrl)
  execute('sh', ['-ec', generate])
  writeFileSync(join(folder, 'tasks.ts'), code.replaceAll('http://127.0.0.1:3000', apiUrl))
  execute('npx', ['tsc', ...COMPILER_OPTIONS, 'tasks.ts'])
  execute('npx', [
    'esbuild',
    'tasks.ts',
    '--bundle',
    '--format=esm',
    '--outfile=tasks.js',
    '--log-level=warning'
  ])
  const { buyMilk } = await import(pathToFileURL(join(folder, 'tasks.js')).href)
  assert.equal(await buyMilk(async () => token), 'Buy milk')
}
