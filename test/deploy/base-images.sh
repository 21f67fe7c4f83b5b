#!/usr/bin/env bash
# Builds the base images of the Dockerfile and compose.yaml from this machine's files, for machines without a registry.
# They have only the parts of the official images that are used here.
#
# base-images.sh NODE NPM: the binary of Node, and the folder of npm
set -euo pipefail
node=$1
npm=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
major=$(ls /usr/lib/postgresql | sort -n | tail -1)

container=
root=
begin() {
  container=$(buildah from scratch)
  root=$(buildah mount "$container")
  mkdir -p "$root"/usr/{bin,lib,lib64,sbin,share,local/bin,local/etc,local/lib/node_modules} "$root"/{tmp,root,etc/ssl/certs,var/lib}
  for name in bin lib lib64 sbin; do ln -s "usr/$name" "$root/$name"; done
  chmod 1777 "$root/tmp"
  # Links as in coreutils.
  programs bash dash cat chmod chown cp env id install ln ls mkdir mv printf rm sleep test touch
  ln -s dash "$root/usr/bin/sh"
}

# Copies programs with their libraries.
programs() {
  local program file
  for program; do
    file=$(readlink -f "$(type -P "$program")")
    cp "$file" "$root/usr/bin/$program"
    libraries "$file"
  done
}

libraries() {
  local library
  for library in $(ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/lib64/ { print $1 }' | sort -u); do
    install -D "$(readlink -f "$library")" "$root/$library"
  done
}

commit() { # NAME ACCOUNT
  printf 'root:x:0:0:root:/root:/bin/sh\n%s\n' "$2" >"$root/etc/passwd"
  printf 'root:x:0:\n%s:x:%s:\n' "${2%%:*}" "$(cut -d: -f4 <<<"$2")" >"$root/etc/group"
  buildah umount "$container" >/dev/null
  buildah commit --quiet --rm "$container" "docker.io/library/$1"
}

begin
libraries "$node"
# Node resolves host names with these.
cp -L /lib/x86_64-linux-gnu/libnss_{dns,files}.so.2 "$root/lib/x86_64-linux-gnu/"
cp "$node" "$root/usr/local/bin/node"
cp -r "$npm" "$root/usr/local/lib/node_modules/npm"
for name in npm npx; do ln -s "../lib/node_modules/npm/bin/$name-cli.js" "$root/usr/local/bin/$name"; done
# This machine's settings for its registry.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
npm config get cafile --location=global | sed -n 's/^\//cafile=\//p' >"$root/usr/local/etc/npmrc"
# A build can mount this machine's cache there.
echo 'cache=/var/cache/npm' >>"$root/usr/local/etc/npmrc"
buildah config --env PATH=/usr/local/bin:/usr/bin --cmd node "$container"
commit node:24-bookworm-slim node:x:1000:1000::/home/node:/bin/sh

begin
programs openssl setpriv
bin=/usr/lib/postgresql/$major/bin
mkdir -p "$root/usr/lib/postgresql/$major" "$root/usr/share/postgresql" "$root/usr/share/zoneinfo" "$root/etc/ssl" "$root/docker-entrypoint-initdb.d" "$root/run/postgresql"
ln -s ../run "$root/var/run"
chmod 1777 "$root/run/postgresql"
cp -r "/usr/lib/postgresql/$major/"{bin,lib} "$root/usr/lib/postgresql/$major/"
cp -r "/usr/share/postgresql/$major" "$root/usr/share/postgresql/"
cp -r /usr/share/zoneinfo/{Etc,UTC} "$root/usr/share/zoneinfo/"
cp /etc/ssl/openssl.cnf "$root/etc/ssl/"
mkdir -p "$root/usr/lib/ssl" && ln -s /etc/ssl/openssl.cnf "$root/usr/lib/ssl/openssl.cnf"
libraries "$bin"/{postgres,initdb,pg_ctl,psql,pg_isready} "/usr/lib/postgresql/$major/lib/"*.so
install "$here/postgres-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
buildah config --env "PATH=/usr/local/bin:/usr/bin:$bin" --env "PGDATA=/var/lib/postgresql/$major/docker" \
  --entrypoint '["docker-entrypoint.sh"]' --cmd postgres --stop-signal SIGINT --port 5432 "$container"
commit postgres:18-bookworm postgres:x:999:999::/var/lib/postgresql:/bin/bash
