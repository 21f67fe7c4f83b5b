#!/usr/bin/env bash
# Runs at each start, and makes only missing files. Each service has a volume of its own, so the API sees neither the
# password of the schema's owner nor PostgreSQL's key.
set -euo pipefail
umask 077
cd /secrets

for name in postgres owner service; do
  [ -s "postgres/$name-password" ] || openssl rand -hex 32 >"postgres/$name-password"
done
[ -s postgres/jwt-secret ] || openssl rand -hex 32 >postgres/jwt-secret

# A self-signed certificate: the clients trust no other.
if [ ! -s postgres/server.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 \
    -subj /CN=postgres -addext subjectAltName=DNS:postgres \
    -keyout postgres/server.key -out postgres/server.crt
fi
chown -R postgres:postgres postgres

url() {
  echo "postgres://tasks_$1:$(<"postgres/$1-password")@postgres/tasks?sslmode=verify-full&sslrootcert=/run/secrets/tasks/postgres.crt"
}
cp postgres/server.crt migrate/postgres.crt
cp postgres/server.crt api/postgres.crt
printf '%s\n' "DATABASE_URL=$(url service)" "MIGRATION_DATABASE_URL=$(url owner)" >migrate/env
printf '%s\n' "DATABASE_URL=$(url service)" >api/env
# Tokens have one source of keys.
[ -n "${JWKS_URL:-}" ] || echo "JWT_SECRET=$(<postgres/jwt-secret)" >>api/env
# The user of the Dockerfile.
chown -R 1000:1000 migrate api
