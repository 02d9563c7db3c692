#!/bin/sh
# Remove what can be made again from the checkout alone. Never the data in .state/, nor anything on the engine.
set -eu
cd "$(dirname "$0")/.."

if [ -f .state/run/supervisord.pid ] && kill -0 "$(cat .state/run/supervisord.pid)" 2>/dev/null; then
    echo "error: the server runs from the virtual environment; stop it first (make down)." >&2
    exit 1
fi
rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
