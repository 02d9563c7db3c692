#!/bin/sh
# `setup/stop.sh down` or `setup/stop.sh engine-down`, in the virtual environment as it is: stopping installs nothing.
set -eu
cd "$(dirname "$0")/.."
command="${1:?usage: setup/stop.sh down|engine-down}"

if .venv/bin/python -c 'import docker, requests, supervisor' 2>/dev/null; then
    exec .venv/bin/python -m setup "$command"
fi

pid_file="${STATE_DIRECTORY:-.state}/run/supervisord.pid"
echo "error: there is no usable virtual environment in .venv, so nothing was stopped. \`setup/venv.sh embedded\`" \
    "makes it; then run this again." >&2
if [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; then
    echo "The server's supervisord may still be running as process $(cat "$pid_file")." >&2
fi
exit 1
