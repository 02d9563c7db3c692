#!/bin/sh
# Everything that `make lint` refuses, cheapest first; stops at the first kind that fails.
set -eu
cd "$(dirname "$0")/.."
bin=.venv/bin

$bin/ruff check --quiet .
$bin/ruff format --check --quiet . || { echo "error: the files above are not formatted; run make format." >&2; exit 1; }
$bin/python -m setup check-lengths
$bin/mypy
$bin/lint-imports
