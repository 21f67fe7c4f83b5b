#!/usr/bin/env bash
# In place of the official image's: what its documentation says of the settings that compose.yaml uses.
# https://github.com/docker-library/docs/tree/master/postgres
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA"
  chown -R postgres:postgres /var/lib/postgresql
  chmod 700 "$PGDATA"
  exec setpriv --reuid postgres --regid postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --encoding=UTF8 --locale=C --auth=scram-sha-256
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
  pg_ctl --wait --options="$(printf '%q ' "${@:2}") -c listen_addresses=''" start
  psql --no-psqlrc -v ON_ERROR_STOP=1 -U postgres -d postgres -c "create database \"$POSTGRES_DB\""
  for file in /docker-entrypoint-initdb.d/*.sql; do
    psql --no-psqlrc -v ON_ERROR_STOP=1 -U postgres -d "$POSTGRES_DB" -f "$file"
  done
  pg_ctl --wait --mode=fast stop
fi
exec "$@"
