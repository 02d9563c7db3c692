"""What two runs of a model say about it, in words for its author: pure functions from what was seen to
findings.

``setup/model_test/`` enters once both profiles have been tried. A table test holds every finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from consumer.attempt.sandbox import UNPRIVILEGED_USER
from consumer.outside.inspecting_engine import ImageDetails
from consumer.outside.wording import one_line
from consumer.trial.run import Plan, Run
from contracts.messages import SandboxProfile
from contracts.reasons import ReasonCode

# Above this a node needs many minutes to pull an image, and few of them fit on its disk.
LARGE_IMAGE_BYTES = 8 * 1024**3
# Whoever comes this near to the limit passes it with a larger input.
_NEAR = 0.8
# People who wait longer than this want to know how far it is.
_SILENT_SECONDS = 10.0
_SHOWN_PATHS = 6
_READ_ONLY = "read-only file system"
_DENIED = re.compile(r"permission denied|operation not permitted|must be (run as )?root|not root", re.I)
_UNREACHED = re.compile(
    r"network is unreachable|name or service not known|temporary failure in name resolution"
    r"|could ?n[o']t resolve|nodename nor servname|no address associated with hostname|bad address"
    r"|EAI_AGAIN|ENOTFOUND|no such host|failed to establish a new connection|max retries exceeded",
    re.I,
)
# Without white space inside: the apostrophe of "can't" opens nothing.
_QUOTED = re.compile(r"['\"\u2018`]([^'\"\u2019`\s]+)['\"\u2019`]")
_PATH = re.compile(r"(?<![\w.])/[\w.+@%/-]*[\w+@%-]")
_OURS = "[inferenceserver] "


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A sentence or more; ``problem``: it keeps the model from running in a profile."""

    text: str
    problem: bool = False


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What was found, and the tightest profile in which the model works, null for neither."""

    findings: tuple[Finding, ...]
    profile: SandboxProfile | None


def judge(plan: Plan, strict: Run, compatible: Run, own_user: str | None = None) -> Judgement:
    """The findings, problems first. ``own_user``: as whom both ran where the engine's user is not root."""
    works = next((run.profile for run in (strict, compatible) if run.succeeded), None)
    found = [
        *_of_failures(strict, compatible),
        *_of_root(plan.image, strict, compatible),
        *_of_writes(strict, compatible),
        *_of_network(plan, strict, compatible),
        *_of_output(strict, compatible),
        *_of_usage(plan, strict, compatible),
        *_of_image(plan.image),
    ]
    if own_user is not None:
        found.append(
            Finding(
                text=f"Both runs were those of your own user ({own_user}), because this was not started by "
                f"root; a server runs strict models as {UNPRIVILEGED_USER}. Try it once more as root."
            )
        )
    return Judgement(findings=tuple(sorted(found, key=lambda one: not one.problem)), profile=works)


def _of_failures(strict: Run, compatible: Run) -> Iterator[Finding]:
    if not strict.succeeded and not compatible.succeeded and strict.sentence == compatible.sentence:
        yield Finding(text=strict.sentence, problem=True)
        return
    for run in (strict, compatible):
        if not run.succeeded:
            yield Finding(text=f"In the {run.profile.value} profile: {run.sentence}", problem=True)


def _of_root(image: ImageDetails, strict: Run, compatible: Run) -> Iterator[Finding]:
    own = "root" if image.runs_as_root else f"user {image.user}"
    needs = not strict.succeeded and compatible.succeeded
    if needs and _DENIED.search(strict.log):
        yield Finding(
            text=f"It needs its own user ({own}): as user {UNPRIVILEGED_USER}, without any rights, it was "
            f"refused ({_first_line(strict.log, _DENIED)}). Make its files readable for everybody "
            "(RUN chmod -R a+rX /app in the Dockerfile), or register it with the compatible profile.",
            problem=True,
        )
    elif image.runs_as_root and strict.succeeded:
        yield Finding(
            text=f"The image names no user and so runs as root; it does not need to: the server runs it as "
            f"{UNPRIVILEGED_USER}."
        )


def _of_writes(strict: Run, compatible: Run) -> Iterator[Finding]:
    refused = refused_paths(strict.log)
    paths = list(dict.fromkeys([*refused, *compatible.changed_paths]))
    if not paths:
        return
    if strict.succeeded:
        yield Finding(
            text=f"With a writable root it also writes to {_listed(paths)}; it works without. Point caches "
            "at /tmp to be quicker."
            if not refused
            else f"It tries to write to {_listed(paths)}, is refused, and works without."
        )
    else:
        yield Finding(
            text=f"It writes outside /output and /tmp, which the strict profile refuses: {_listed(paths)}. "
            "Write results below $OUTPUT and all else below $TMPDIR (caches: HF_HOME, MPLCONFIGDIR, "
            "NUMBA_CACHE_DIR, TORCH_HOME, XDG_CACHE_HOME), or register it with the compatible profile.",
            problem=True,
        )


def refused_paths(log: str) -> list[str]:
    """The paths that a log names where it says that a file system is read-only."""
    lines = [line for line in log.splitlines() if _READ_ONLY in line.lower()]
    # The path stands last before the words, or (Python's own wording) quoted behind them.
    named = [_QUOTED.findall(line) or _PATH.findall(line) for line in lines]
    return list(dict.fromkeys(paths[-1] for paths in named if paths))


def _of_network(plan: Plan, strict: Run, compatible: Run) -> Iterator[Finding]:
    tried = [run for run in (strict, compatible) if _network_calls(run) or _first_line(run.log, _UNREACHED)]
    if plan.network or not tried:
        return
    counted = max(map(_network_calls, tried))
    times = "once" if counted == 1 else f"{counted} times" if counted else "at least once"
    said = next(filter(None, (_first_line(run.log, _UNREACHED) for run in tried)), "")
    words = f" Its log says: {said}." if said else ""
    yield Finding(
        text=f"It tried to reach a network ({times}), and there is none in the sandbox.{words} What it "
        "downloads belongs into the static content or into the image; some libraries only ask for "
        "updates, which HF_HUB_OFFLINE=1 and its like turn off. An admin can allow a network (--network).",
        # Where it went on without one, it can do without.
        problem=not any(run.succeeded for run in tried),
    )


def _network_calls(run: Run) -> int:
    return 0 if run.network is None else run.network.no_route + run.network.unheard


def _of_output(strict: Run, compatible: Run) -> Iterator[Finding]:
    codes = {strict.code, compatible.code}
    if ReasonCode.NO_OUTPUT in codes and compatible.changed_paths:
        yield Finding(
            text=f"It wrote to {_listed(list(compatible.changed_paths))} instead of below $OUTPUT.",
            problem=True,
        )
    best = strict if strict.succeeded else compatible
    for line in best.log.splitlines():
        if line.startswith(_OURS):
            yield Finding(text=one_line(line.removeprefix(_OURS)))
    if best.progress.invalid:
        yield Finding(
            text=f"{best.progress.invalid} of its progress lines say nothing to the server, for instance "
            f"{one_line(best.progress.first_invalid)!r}; a line is a JSON object with a fraction from 0 to 1"
            ', a message, or both: {"fraction": 0.4, "message": "slice 12 of 30"}.'
        )
    elif best.succeeded and not best.progress.valid and best.seconds > _SILENT_SECONDS:
        yield Finding(
            text=f"It ran for {best.seconds:.0f} s and said nothing of its progress; a line of JSON in the "
            "file $PROGRESS tells those who wait."
        )


def _of_usage(plan: Plan, strict: Run, compatible: Run) -> Iterator[Finding]:
    if ReasonCode.OUT_OF_MEMORY in {strict.code, compatible.code}:
        yield Finding(text="Try it with more memory: MEMORY=16g, and register it with --memory 16g.")
        return
    peak = max(strict.peak_memory_bytes or 0, compatible.peak_memory_bytes or 0)
    if peak > _NEAR * plan.limits.memory_bytes:
        yield Finding(
            text=f"It used {size(peak)} of the {size(plan.limits.memory_bytes)} that it may use; a larger "
            "input could pass the limit. Register it with a larger --memory."
        )


def _of_image(image: ImageDetails) -> Iterator[Finding]:
    if not image.program:
        yield Finding(
            text="The image does not say what to run: give its Dockerfile an ENTRYPOINT or a CMD.",
            problem=True,
        )
    for volume in image.volumes:
        yield Finding(
            text=f"The image declares VOLUME {volume}: on the server that is an empty place in memory as "
            "large as /tmp, and what the image has there is hidden. Remove the line from the Dockerfile."
        )
    if image.has_health_check:
        yield Finding(text="Its HEALTHCHECK is never run on the server; remove it from the Dockerfile.")
    if image.size_bytes > LARGE_IMAGE_BYTES:
        yield Finding(
            text=f"The image holds {size(image.size_bytes)}, which every node has to pull and keep. Weights "
            "belong into the static content, which is sent once; and caches of pip and apt out of the layers "
            "(--no-cache-dir, rm -rf /var/lib/apt/lists/*)."
        )


def size(size_bytes: int) -> str:
    """A size for people."""
    value = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} GiB"


def _first_line(log: str, pattern: re.Pattern[str]) -> str:
    line = next((line for line in log.splitlines() if pattern.search(line)), "")
    return one_line(line, 160).rstrip(". ")


def _listed(paths: list[str]) -> str:
    shown = [one_line(path, 120) for path in paths[:_SHOWN_PATHS]]
    more = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
    return ", ".join(shown) + more
