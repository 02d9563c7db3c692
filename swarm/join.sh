#!/bin/sh
# Have this machine's engine trust the Swarm's own registry and, when given what `docker swarm join` needs, join.
# `make registry-up` writes this file's second half into a copy at .state/registry/join.sh; take that one along.
#
#     sh join.sh                                            # trust only
#     sh join.sh --token SWMTKN-1-… 192.168.1.10:2377       # trust, then docker swarm join
#
# It holds no secret: the certificate of an authority, and the address of the registry.
set -eu

case "${1:-}" in
    -h | --help)
        sed -n '2,8s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
esac

registry='@REGISTRY@'
certificate='@CERTIFICATE@'

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
case "$registry" in @*) fail "take the copy that make registry-up wrote, .state/registry/join.sh." ;; esac
[ "$(id -u)" = 0 ] || fail "the engine's certificates are root's: sudo sh $0 $*"

# The engine looks here each time it asks that registry; it need not be restarted.
folder="/etc/docker/certs.d/$registry"
mkdir -p "$folder"
printf '%s\n' "$certificate" >"$folder/.ca.crt.draft"
chmod 0644 "$folder/.ca.crt.draft"
mv "$folder/.ca.crt.draft" "$folder/ca.crt"
printf 'The engine trusts %s (%s).\n' "$registry" "$folder/ca.crt"

[ $# -eq 0 ] || exec docker swarm join "$@"
