#!/bin/sh
# Everything that `make lint` refuses, cheapest first; stops at the first kind that fails.
set -eu
cd "$(dirname "$0")/.."
bin=.venv/bin

$bin/ruff check --quiet .
$bin/ruff format --check --quiet . || { echo "error: the files above are not formatted; run make format." >&2; exit 1; }
$bin/python -m setup check-lengths
# The example's modules lie beside one another in its image, so that is how mypy must find them.
MYPYPATH=examples/digits $bin/mypy
$bin/lint-imports
