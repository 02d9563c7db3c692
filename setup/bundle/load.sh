#!/bin/sh
# Load the images of a bundle on this machine's engine, and nothing else: `make bundle-load BUNDLE=file`.
set -eu

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ -n "${1:-}" ] || fail "name the bundle in BUNDLE=, as in: make bundle-load BUNDLE=dist/inferenceserver-2.0.0.tar"
[ -f "$1" ] || fail "there is no bundle $1."
# Beside the bundle, where there was room for it.
work=$(mktemp -d "$(dirname "$1")/.bundle-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
tar -C "$work" -xf "$1" || fail "$1 is damaged, or cut off. Copy it again; nothing was changed."
set -- "$work"/*/install
[ -f "$1" ] || fail "this is no bundle."
sh "$1" --images-only
