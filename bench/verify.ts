import assert from 'node:assert/strict'
import type postgres from 'postgres'
import { TASKS_PER_USER, taskId, type Users } from './dataset.js'
import { type OperationName, operations } from './operations.js'

/** Compares the answers of each operation with the table, because a fast server may answer wrongly. */
export async function verify(
  url: string,
  sql: postgres.Sql,
  users: Users,
  names: OperationName[]
): Promise<void> {
  for (const name of names) {
    if (name === 'mix') continue
    const { statuses, request } = operations[name]
    const { method, path, headers, body } = request(users)
    const owner = path.split('/')[2] as string
    const id = path.split('/')[4]
    const before = id && (await read(sql, owner, id))
    const response = await fetch(url + path, { method, headers, ...(body !== undefined && { body }) })
    const answer = await response.text()
    try {
      assert.ok(statuses.includes(response.status), `status ${response.status}`)
      if (name === 'refused') continue
      const json = JSON.parse(answer)
      if (name === 'list') {
        assert.deepEqual(json, await read(sql, owner))
        assert.equal(json.length, TASKS_PER_USER)
        assert.equal(json[0].id, taskId(Number(owner.split('-')[1]), TASKS_PER_USER - 1), 'newest first')
        continue
      }
      assert.deepEqual(json, await read(sql, owner, json.id))
      if (id) assert.equal(json.id, id)
      if (body) assert.deepEqual({ ...json, ...JSON.parse(body) }, json, 'what was sent')
      if (name === 'toggle') assert.equal(json.completed, !before.completed, 'toggled')
    } catch (error) {
      throw new Error(`${name} answers wrongly: ${(error as Error).message}\n${method} ${path}: ${answer}`)
    }
  }
}

/** The rows in the API's format. */
async function read(sql: postgres.Sql, user: string, id?: string) {
  const rows = await sql`
    select id, user_id, title, description, completed, completed_at, created_at, updated_at from tasks where user_id = ${user} ${id ? sql`and id = ${id}` : sql``} order by id desc`
  const tasks = JSON.parse(JSON.stringify(rows))
  return id ? tasks[0] : tasks
}
