#!/bin/sh
# Make or refresh the virtual environment: `setup/venv.sh embedded` (to run) or `setup/venv.sh dev` (to test).
#
# The first thing that runs on a fresh machine, so it is plain sh and needs nothing of ours. It is quick when
# nothing changed: a stamp in the environment holds the hash of the requirements that were installed.
# pip reads its own settings (PIP_CERT, PIP_INDEX_URL, proxies), so it works wherever pip does; SSL_CERT_FILE
# is handed on to it for machines behind a TLS-inspecting proxy that set only that.
set -eu

group="${1:?usage: setup/venv.sh embedded|dev}"
root=$(cd "$(dirname "$0")/.." && pwd)
venv="$root/.venv"
requirements="$root/requirements/$group.txt"

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ -f "$requirements" ] || fail "there is no $requirements; the group must be embedded or dev."

hash_of() {
    # cksum would do, but a stamp that lies costs an hour: use a real hash, of whichever tool is there.
    if command -v sha256sum >/dev/null 2>&1; then sha256sum <"$1" | cut -d' ' -f1
    else shasum -a 256 <"$1" | cut -d' ' -f1; fi
}

stamped() { # Whether group $1 is installed as its requirements are now.
    [ -f "$venv/.installed-$1" ] && [ -x "$venv/bin/python" ] \
        && [ "$(cat "$venv/.installed-$1")" = "$(hash_of "$root/requirements/$1.txt")" ] \
        && "$venv/bin/python" -c '' 2>/dev/null
}

# Everything of the embedded group is in dev too.
if stamped "$group" || { [ "$group" = embedded ] && stamped dev; }; then exit 0; fi

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() { # The first on the PATH that is new enough.
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 && usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
}

debian_as_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

apt_install() {
    say "→ Installing $* with apt-get ($why)"
    apt-get update -qq >/dev/null || say "  apt-get update failed; going on with the package lists that are there."
    # Finishes an installation that was cut off; what it cannot finish, apt-get may not need.
    DEBIAN_FRONTEND=noninteractive dpkg --configure -a >/dev/null \
        || say "  dpkg --configure -a failed (its message is above); going on with apt-get install."
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null \
        || fail "apt-get could not install $*; install it by hand and run this again."
}

if [ -n "${PYTHON:-}" ]; then
    usable "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer that runs here; name another, or leave it out."
    python=$(command -v "$PYTHON")
else
    python=$(find_python)
fi
if [ -z "$python" ] && ! command -v python3 >/dev/null 2>&1 && debian_as_root; then
    why="there is no python3 here"
    apt_install python3 python3-venv
    python=$(find_python)
fi
[ -n "$python" ] || fail "Python 3.11 or newer is needed and $(python3 --version 2>/dev/null || echo 'no python3') was \
found. Install it and run this again (PYTHON=/path/to/python3 chooses one)."

if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    why="$python cannot make virtual environments without it"
    if debian_as_root; then
        apt_install python3-venv
        "$python" -c 'import venv, ensurepip' 2>/dev/null \
            || fail "$python still cannot make virtual environments; choose another one with PYTHON=/path/to/python3."
    else
        fail "$python lacks the modules venv and ensurepip. Install them (Debian/Ubuntu: apt-get install \
python3-venv) and run this again."
    fi
fi

started=$(date +%s)
# An environment that was cut off while it was being made, or whose Python is gone, is made again.
if [ -d "$venv" ] && ! "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "→ Removing the unfinished virtual environment in .venv"
    rm -rf "$venv"
fi
if [ ! -d "$venv" ]; then
    say "→ Making a virtual environment in .venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi

if [ -z "${PIP_CERT:-}" ] && [ -n "${SSL_CERT_FILE:-}" ]; then
    PIP_CERT="$SSL_CERT_FILE"
    export PIP_CERT
fi
say "→ Installing requirements/$group.txt (pinned, with hashes)"
rm -f "$venv/.installed-$group"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$requirements" \
    || fail "pip could not install requirements/$group.txt (its message is above). Behind a proxy set HTTPS_PROXY; \
where TLS is inspected set PIP_CERT to the CA bundle; for a mirror set PIP_INDEX_URL. Then run this again."

# The client is a distribution of its own; a path file and a script make it usable without building it.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$root/client/src" >"$site/inference_server_client_source.pth"

printf '#!/bin/sh\nexec "%s/bin/python" -m inference_server_client "$@"\n' "$venv" >"$venv/bin/infer"
chmod +x "$venv/bin/infer"

hash_of "$requirements" >"$venv/.installed-$group"
say "  done in $(($(date +%s) - started)) s"
