import type { Client } from './driver.js'

/**
 * Limits that are as strict already are kept.
 *
 * - If the rest of a transaction does not arrive within 10 seconds, it must not keep its locks. The service sends it without
 *   pauses.
 * - A machine that takes or answers nothing for 90 seconds is gone. By default it takes two hours until the first probe
 *   (keepalive), or a quarter of an hour if an answer was not acknowledged. On Linux `tcp_user_timeout` also replaces the
 *   number of probes, so it is not set beside somebody else's keepalive.
 */
const LIMITS = `
  select
    case when current_setting('idle_in_transaction_session_timeout')::interval not between '1 ms' and '10 s'
      then set_config('idle_in_transaction_session_timeout', '10s', false) end,
    case when current_setting('tcp_keepalives_idle')::int > 60 and current_setting('tcp_user_timeout') = '0'
      then set_config('tcp_keepalives_idle', '60', false)
        || set_config('tcp_keepalives_interval', '10', false)
        || set_config('tcp_keepalives_count', '3', false)
        || set_config('tcp_user_timeout', '90s', false) end`

const SETTINGS = [
  LIMITS,
  // At a stricter level, PostgreSQL refuses a change of a task that another request has changed meanwhile (40001).
  "set default_transaction_isolation = 'read committed'",
  // The pool closes idle connections itself, and needs the last one. A statement could be lost if the server closed it.
  'set idle_session_timeout = 0'
]

/**
 * Lets PostgreSQL close a connection of the pool by itself if this process cannot be reached any more. Otherwise users could
 * not change the tasks that the connection has locked. An engine that lacks a setting keeps its own limits.
 *
 * Also replaces two defaults of a database or a role that would make requests fail.
 *
 * Behind a pooler nothing is set, because its server connections serve others too.
 */
export function withServerSettings(client: Client): Client {
  if (client.canPipeline) for (const text of SETTINGS) client.query(text, []).then(undefined, () => {})
  return client
}
