#!/bin/sh
# Starts one node of a broker of three; what the container runs instead of `rabbitmq-server`. It needs the node's
# name in RABBITMQ_NODENAME (rabbit@broker-1), the three names in BROKER_CLUSTER, and the secret that they share
# in /run/secrets/broker-cookie. Needs no root, and works in the makers' image as in ours.
set -eu

host=${RABBITMQ_NODENAME#*@}
here=$(dirname "$0")

fail() {
    echo "This node of the broker cannot start: $*" >&2
    exit 1
}

# A copy, because Erlang wants to own the file, and nobody else may read it.
cookie=$(tr -d '\n' </run/secrets/broker-cookie) || fail "/run/secrets/broker-cookie cannot be read."
[ "${#cookie}" -ge 32 ] || fail "the secret broker-cookie has ${#cookie} characters; it needs 32 or more."
draft=$HOME/.erlang.cookie.draft
rm -f "$draft"
(umask 077 && printf %s "$cookie" >"$draft")
mv -f "$draft" "$HOME/.erlang.cookie"
unset cookie

# Nodes talk to each other on the network that knows this name, and listen on no other.
tries=60
until address=$(getent ahostsv4 "$host" | awk 'NR == 1 { print $1 }') && [ -n "$address" ]; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "its name $host has no address; the container needs it on the brokers' network."
    sleep 0.5
done
export ERL_EPMD_ADDRESS="$address"
epmd -daemon
# shellcheck disable=SC2086 # These are words.
escript "$here/gather.escript" "$address" "$RABBITMQ_NODENAME" $BROKER_CLUSTER

# A queue keeps the members that it was made with. One that was made before this node was part of the cluster
# gets it as a member now; where it is one already, this changes nothing.
become_member() {
    until rabbitmqctl --quiet await_startup --timeout 600 >/dev/null 2>&1; do
        sleep 5
    done
    until refused=$(rabbitmq-queues --silent grow "$RABBITMQ_NODENAME" all --errors-only 2>&1) &&
        [ -z "$refused" ]; do
        echo "Not yet a member of every queue: $refused" >&2
        sleep 5
    done
}
become_member &

export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="${RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS:-} \
-kernel inet_dist_use_interface {$(echo "$address" | tr . ,)}"
exec rabbitmq-server
