#!/bin/sh
# Pin every group of pyproject.toml, and the example's requirements, with hashes and without index addresses.
set -eu
cd "$(dirname "$0")/.."

pin() { # pin FILE SOURCE…: the newest versions that fit Python 3.11 and later, on every platform.
    target="$1"
    shift
    echo "→ Locking $target"
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
        --no-header --no-annotate --no-emit-index-url --output-file "$target" "$@"
}

pin requirements/embedded.txt pyproject.toml --group embedded
pin requirements/dev.txt pyproject.toml --group dev
# What each service's image installs, and nothing besides.
for service in private-api public-api consumer proxy client; do
    pin "requirements/$service.txt" pyproject.toml --group "$service"
done
pin examples/digits/requirements.txt examples/digits/requirements.in
pin examples/digits/requirements-train.txt examples/digits/requirements-train.in
pin examples/dicom/requirements.txt examples/dicom/requirements.in
