import type { Client } from './driver.js'

/**
 * Each setting is kept if it is as strict already.
 *
 * - A transaction is sent as a whole, so it is never idle for long. If the rest does not arrive, it must not keep its locks.
 * - A machine that acknowledges nothing for 90 seconds is gone. By default it takes two hours if nothing was sent to it
 *   (keepalive), and a quarter of an hour otherwise.
 */
const LIMITS = `
  select
    case when current_setting('idle_in_transaction_session_timeout') = '0'
      then set_config('idle_in_transaction_session_timeout', '10s', false) end,
    case when current_setting('tcp_keepalives_idle')::int > 60
      then set_config('tcp_keepalives_idle', '60', false)
        || set_config('tcp_keepalives_interval', '10', false)
        || set_config('tcp_keepalives_count', '3', false) end,
    case when current_setting('tcp_user_timeout') = '0' then set_config('tcp_user_timeout', '90s', false) end`

/**
 * Lets PostgreSQL close a connection of the pool by itself if this process cannot be reached any more. Otherwise users could
 * not change the tasks that the connection has locked. An engine that lacks a setting keeps its own limits.
 *
 * Behind a pooler nothing is set, because its server connections serve others too.
 */
export function limitOnServer(client: Client): Client {
  if (client.canPipeline) client.query(LIMITS, []).then(undefined, () => {})
  return client
}
