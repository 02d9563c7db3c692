"""Tiny models, well-behaved and misbehaving: one line of shell each.

End-to-end tests, chaos tests and benchmarks pick from ``MODELS`` by name; ``images`` makes an image of each.
A script is run by ``/bin/sh -c`` in a container that has nothing but busybox.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TinyModel:
    """A program for a container, and in words what it does."""

    does: str
    entrypoint: tuple[str, ...]


def _shell(does: str, script: str) -> TinyModel:
    return TinyModel(does, ("/bin/sh", "-c", script))


_SLOWLY = """
steps=$(cat /input/steps.txt 2>/dev/null || echo 20)
for step in $(seq 1 $steps); do
    echo "step $step of $steps"
    fraction=$(awk "BEGIN {print $step / $steps}")
    echo "{\\"fraction\\": $fraction, \\"message\\": \\"step $step\\"}" >> "$PROGRESS"
    sleep 0.2
done
cp -R /input/. /output/
"""

MODELS: dict[str, TinyModel] = {
    "echo": _shell("copies its input to its output", "cp -R /input/. /output/"),
    "slow-echo": _shell("as echo, in steps (input: steps.txt) with progress and a log line each", _SLOWLY),
    "waits": _shell(
        "as echo, after as many seconds as seconds.txt says",
        'sleep "$(cat /input/seconds.txt)"; cp -R /input/. /output/',
    ),
    "uses-model": _shell("copies its static content to its output", "cp -R $MODEL/. /output/"),
    "exits-3": _shell("fails with a word to its log", "echo 'the weights do not fit' >&2; exit 3"),
    "fails-on-input": _shell(
        "fails when it finds bad.txt", "test ! -e /input/bad.txt && echo ok > /output/ok"
    ),
    "writes-nothing": _shell("ends well without a result", "true"),
    "only-directories": _shell("makes nothing but empty directories", "mkdir -p /output/a/b /output/c"),
    "sleeps-for-ever": _shell("never ends", "echo sleeping; sleep 100000"),
    "ignores-sigterm": _shell(
        "never ends, and will not be asked to", "trap '' TERM INT HUP; echo deaf; while :; do sleep 1; done"
    ),
    "bows-to-sigterm": _shell(
        "as slow-echo, but told to stop it claims to have ended well, with half a result",
        "trap 'echo half > /output/half; exit 0' TERM" + _SLOWLY,
    ),
    "hangs-after-writing": _shell("writes its result, then never ends", "echo x > /output/x; sleep 100000"),
    "leaves-a-child": _shell(
        "ends while a child of it would go on writing",
        "(while :; do echo x >> /output/grows; sleep 0.01; done) & echo done > /output/done; sleep 0.2",
    ),
    "eats-memory": _shell("takes memory until it is killed", "exec tail /dev/zero"),
    # (It stays a while: of a group that is gone with its last process an engine may never hear.)
    "child-eats-memory": _shell(
        "ends well although its child was killed for its memory",
        "echo x > /output/x; tail /dev/zero; sleep 2; exit 0",
    ),
    "fork-bomb": _shell("starts processes until it may not", "while :; do sleep 1000 & done"),
    "floods-output": _shell("writes bytes without end", "exec cat /dev/zero > /output/zeros"),
    "floods-output-slowly": _shell(
        "writes many files that are small enough one by one",
        "i=0; while :; do head -c 1000000 /dev/zero > /output/$i; i=$((i+1)); done",
    ),
    "floods-root": _shell(
        "writes ten megabytes where only a writable root lets it, then never ends",
        "head -c 10000000 /dev/zero > /flood && sleep 100000",
    ),
    "floods-files": _shell(
        "makes files without end", "cd /output; i=0; while :; do : > $i; i=$((i+1)); done"
    ),
    "sparse-terabyte": _shell(
        "makes a file of 1 TB that takes no room", "exec truncate -s 1000000000000 /output/sparse"
    ),
    "links-out": _shell(
        "links to what is not its own",
        "cd /output; ln -s /etc/passwd passwd; ln -s / root; ln -s ../../../../etc/shadow up; echo x > kept",
    ),
    "locks-its-output": _shell(
        "leaves a result that only root may read, in a directory that only its owner may empty",
        "umask 077; mkdir -p /output/kept/shut /output/sticky; echo x > /output/kept/result;"
        " echo x > /output/kept/shut/file; echo x > /output/sticky/file; chmod 1777 /output/sticky;"
        " chmod 0 /output/kept/result /output/kept/shut /output/kept",
    ),
    "makes-fifo": _shell("leaves a named pipe", "mkfifo /output/pipe; echo x > /output/kept"),
    "deep-directories": _shell(
        "nests a thousand directories",
        "cd /output; i=0; while [ $i -lt 1000 ]; do mkdir d; cd d; i=$((i+1)); done; echo deep > end",
    ),
    "names-not-utf8": _shell(
        "gives a file a name that is no text", "echo x > /output/$(printf 'bad\\377name')"
    ),
    "floods-log": _shell(
        "writes 50 MB of log", "yes 'a line of log, one of very many' | head -c 50000000; echo x > /output/x"
    ),
    "long-log-line": _shell(
        "writes a single line of 10 MB",
        "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo after; echo x > /output/x",
    ),
    "odd-log": _shell(
        "logs colours, markup and bytes that are no text",
        "printf '\\033[31mred\\033[0m </script>\\n\\377\\376 bad\\n'; echo x > /output/x",
    ),
    "tries-network": _shell(
        "says which networks it sees, and what it hears when it tries one that is kept for examples",
        "ip -o addr > /output/addresses; cat /proc/net/route > /output/routes;"
        " nc -w 1 192.0.2.1 80 < /dev/null 2> /output/answer; true",
    ),
    "writes-root": _shell("writes where only a writable root lets it", "echo x > /evil && cp /evil /output/"),
    "writes-tmp": _shell("writes to /tmp", "echo x > /tmp/x && cp /tmp/x /output/x"),
    "runs-from-tmp": _shell(
        "runs a program from /tmp", "cp /bin/busybox /tmp && /tmp/busybox touch /output/x"
    ),
    "tells-about-itself": _shell(
        "prints its environment, user, limits and mounts",
        "env > /output/env; id > /output/id; ulimit -a > /output/limits; cat /proc/mounts > /output/mounts;"
        " cat /proc/self/status > /output/status; ls -la / /input $MODEL > /output/files 2>/dev/null; true",
    ),
    "writes-input": _shell(
        "tries to change its input", "echo x > /input/x && echo changed > /output/x || echo kept > /output/x"
    ),
    "needs-root": _shell(
        "works only as root", '[ "$(id -u)" = 0 ] || { echo permission denied; exit 1; }; echo x > /output/x'
    ),
    "tells-its-gpu": _shell(
        "writes which GPUs it sees and how they were given, then holds them (input: seconds.txt)",
        "nvidia-smi -L > /output/gpus 2>&1; env | grep -E 'NVIDIA|DOCKER_RESOURCE' > /output/env; echo seen;"
        " sleep $(cat /input/seconds.txt 2>/dev/null || echo 0)",
    ),
    "no-program": TinyModel("has an entrypoint that does not exist", ("/no/such/program",)),
}
