import { openDatabase } from '../../../db/index.js'
import { taskRepository } from '../../../db/tasks.js'
import { migratedDatabase, sqlClient } from '../../support/databases.js'
import t, { type Test } from '../../support/tap.js'

/** Creates a task whose title a trigger replaces by the settings of the service's connection. */
async function settingsOf(t: Test, url: string): Promise<string> {
  const db = await openDatabase({ kind: 'postgres', url })
  t.teardown(() => db.close())
  return (await taskRepository(db).create('alice', { title: 'settings' })).title
}

t.test('PostgreSQL closes a connection of the pool that it cannot reach', async (t) => {
  const url = await migratedDatabase(t)
  const sql = sqlClient(t, url)
  await sql.unsafe(`
    create function settings() returns trigger language plpgsql as $$ begin
      new.title := concat_ws(' ', current_setting('idle_in_transaction_session_timeout'),
        current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_interval'),
        current_setting('tcp_keepalives_count'), current_setting('tcp_user_timeout'),
        current_setting('transaction_isolation'), current_setting('idle_session_timeout'));
      return new;
    end $$;
    create trigger settings before insert on tasks for each row execute function settings()`)
  t.equal(await settingsOf(t, url), '10s 60 10 3 90000 read committed 0')

  const withOptions = (options: string) => settingsOf(t, `${url}&options=${encodeURIComponent(options)}`)
  const strict =
    '-c idle_in_transaction_session_timeout=5s -c tcp_keepalives_idle=40 -c tcp_keepalives_count=4'
  t.match(await withOptions(strict), /^5s 40 \d+ 4 0 /)
  t.match(await withOptions('-c tcp_user_timeout=30s'), /^10s \d{4} \d+ \d+ 30000 /)
  const lax = '-c idle_in_transaction_session_timeout=1d -c tcp_keepalives_idle=300'
  t.equal(await withOptions(lax), '10s 60 10 3 90000 read committed 0')
  const isolated = '-c default_transaction_isolation=serializable -c idle_session_timeout=1min'
  t.match(await withOptions(isolated), / read committed 0$/)

  // As on an engine without these settings.
  await sql.unsafe(`
    create function set_config(text, text, boolean) returns text language plpgsql as $$ begin
      raise undefined_object;
    end $$`)
  t.match(await withOptions(`-c search_path=public,pg_catalog ${isolated}`), /^0 .* read committed 0$/)
})
