#!/bin/sh
# Remove what can be made again from the checkout alone. Never the data in .state/, nor anything on the engine.
set -eu
cd "$(dirname "$0")/.."
state=${STATE_DIRECTORY:-.state}

if [ -f "$state/run/supervisord.pid" ] && kill -0 "$(cat "$state/run/supervisord.pid")" 2>/dev/null; then
    echo "error: the server runs from the virtual environment; stop it first (make down)." >&2
    exit 1
fi
rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# What models were sent and what they made lies in the state, and may well hold directories of this name.
set -- -path ./.git -o -path ./.state -o -path ./.venv
if [ -d "$state" ]; then set -- "$@" -o -samefile "$state"; fi
find . \( "$@" \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
