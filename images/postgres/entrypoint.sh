#!/bin/sh
# Make the cluster at the first start, then become the server. Reads POSTGRES_USER, POSTGRES_DB,
# POSTGRES_PASSWORD_FILE and PGDATA, as the upstream image does.
set -eu

fail() { printf 'postgres: %s\n' "$*" >&2; exit 1; }

user="${POSTGRES_USER:-postgres}"
database="${POSTGRES_DB:-$user}"
case "${1:-postgres}" in postgres | -*) ;; *) exec "$@" ;; esac
[ "${1:-}" = postgres ] && shift

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ -n "${POSTGRES_PASSWORD_FILE:-}" ] || fail "POSTGRES_PASSWORD_FILE must name a file with the password."
    [ -r "$POSTGRES_PASSWORD_FILE" ] || fail "$POSTGRES_PASSWORD_FILE cannot be read by uid $(id -u)."
    # Under another name first: a container killed here leaves nothing that looks like a cluster.
    draft="$PGDATA.draft"
    rm -rf "$draft"
    initdb --pgdata="$draft" --username="$user" --pwfile="$POSTGRES_PASSWORD_FILE" \
        --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --data-checksums >&2
    printf 'host all all all scram-sha-256\n' >>"$draft/pg_hba.conf"
    if [ "$database" != postgres ]; then
        # The single-user server: nobody can connect before the database is there.
        printf 'CREATE DATABASE "%s";\n' "$database" | postgres --single -D "$draft" postgres >/dev/null
    fi
    mv "$draft" "$PGDATA"
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql "$@"
