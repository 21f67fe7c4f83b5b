import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { ROOT } from '../support/root.js'
import t from '../support/tap.js'

/** Inner folders first. */
const ROOMS = ['db/postgres', 'db/embedded', 'db', 'plugins', 'routes', 'src']
const roomOf = (file: string) => ROOMS.find((room) => file.startsWith(`${room}/`))

function importsBetweenRooms(): string[] {
  const arrows = new Set<string>()
  for (const top of ROOMS.filter((room) => !room.includes('/'))) {
    for (const name of readdirSync(join(ROOT, top), { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.ts')) continue
      const file = join(top, name)
      for (const [, path] of readFileSync(join(ROOT, file), 'utf8').matchAll(
        /(?: from |import\()'(\.[^']+)'/g
      )) {
        const [from, to] = [roomOf(file), roomOf(normalize(join(dirname(file), path as string)))]
        if (from !== to) arrows.add(`${from} --> ${to}`)
      }
    }
  }
  return [...arrows].sort()
}

t.test('the picture has exactly the imports of the code', async (t) => {
  const page = readFileSync(join(ROOT, 'ARCHITECTURE.md'), 'utf8')
  const [, picture = ''] = /```mermaid\nflowchart TD\n([^`]*)```/.exec(page) ?? []
  const drawn = picture.split('\n').flatMap((line) => line.trim() || [])
  t.strictSame(drawn.sort(), importsBetweenRooms())
})

t.test('every file on the page exists', async (t) => {
  const page = readFileSync(join(ROOT, 'ARCHITECTURE.md'), 'utf8')
  const named = [...page.matchAll(/`((?:src|routes|plugins|db)\/[\w/-]+\.ts)`/g)].map(
    ([, file]) => file as string
  )
  t.ok(named.length > 10)
  for (const file of named) t.doesNotThrow(() => readFileSync(join(ROOT, file)), file)
})
