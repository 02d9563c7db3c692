"""The verdict on an attempt: one pure function from what was seen to success, or a reason with a sentence.

An attempt enters once it is over. A table test holds every row. It keeps our failures and the model's
apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from consumer.outside.wording import one_line
from contracts.messages import Lease, SandboxProfile
from contracts.reasons import ReasonCode


class Stop(Enum):
    """Why we ended an attempt before it ended by itself."""

    LEASE_LOST = auto()  # Nothing may be said about it any more.
    CANCELED = auto()
    DRAINED = auto()
    PREVENTED = (
        auto()
    )  # It could not start, or its output could not be stored; the cause brings its own code.
    ENGINE_LOST = auto()
    TIMED_OUT = auto()
    OUTPUT_TOO_LARGE = auto()
    NODE_FULL = auto()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was seen of one attempt. ``exit_code`` is null when no exit was seen."""

    lease: Lease
    exit_code: int | None = None
    oom_killed: bool = False
    stop: Stop | None = None
    detail: str = ""
    prevented_code: ReasonCode | None = None
    last_line: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How an attempt ended; ``code`` is null for success."""

    code: ReasonCode | None
    sentence: str
    exit_code: int | None

    @property
    def succeeded(self) -> bool:
        """Whether there is an output to commit."""
        return self.code is None


# 128 + SIGKILL and 128 + SIGTERM: somebody ended the first process. When it was neither us nor the memory
# limit, it was the machine.
_KILLED = {137, 143}
# 128 + SIGXFSZ: a file grew past the file size limit, which lies just above the output limit.
_FILE_TOO_LARGE = 153
# What the engine's init says and returns when it cannot run the program of the image.
_NOT_RUNNABLE = {126, 127}
_INIT_WORDS = re.compile(r"^\[FATAL tini \(\d+\)\] (?P<words>.*)")
# What engines and runtimes say of an image whose program, user or directories are wrong.
_IMAGES_FAULT = re.compile(
    r"exec: .*(no such file or directory|permission denied|is a directory|not a directory)"
    r"|executable file not found|exec format error|no command specified"
    r"|unable to find (user|group)|no matching entries in (passwd|group) file|invalid user|invalid group"
    r"|chdir to cwd|working directory .* is invalid|invalid working directory"
    # A mount point that is a file in the image, or that no container can have.
    r"|not a directory|invalid mount (path|target)|mount path must be absolute|destination can't be '/'"
    r"|(is|be) inside /proc"
)
# Words in which the same phrases speak of the machine's own files; these win.
_MACHINES_FAULT = (
    "mount local volume", "nvidia-container", "network namespace", "cgroup", "rlimit", "no space left",
    "cannot allocate memory", "too many open files", "unknown runtime", "containerd-shim",
)  # fmt: skip
# What programs say when strict refuses them something.
_REFUSED = re.compile(r"read-only file system|permission denied|operation not permitted", re.IGNORECASE)
_HINT = (
    ". The strict sandbox has a read-only root and an unprivileged user; if the model needs more, register "
    "it with the compatible profile, or let it write to /tmp only."
)


def decide(facts: Facts) -> Verdict:
    """The verdict. The order of the questions is the order in which causes win over one another."""
    if facts.stop in {Stop.CANCELED, Stop.DRAINED, Stop.PREVENTED, Stop.ENGINE_LOST}:
        return _stopped_by_others(facts)
    if facts.oom_killed:
        # Whatever the exit code: where a child was killed, the parent may end well with half a result.
        memory = _size(facts.lease.limits.memory_bytes)
        return _failed(
            facts,
            ReasonCode.OUT_OF_MEMORY,
            f"The model used more than its memory limit of {memory}; raise the model's memory_bytes, "
            "or send less.",
        )
    if facts.stop is not None:
        return _stopped_by_limit(facts)
    return _ended_by_itself(facts)


def start_failure(words: str) -> tuple[ReasonCode, str]:
    """What a refusal to create or start the container means, from the engine's ``words``.

    Only what is known to be said of images is the image's fault: everything else is tried again, which costs
    little, while a model's failure is final.
    """
    lowered = words.lower()
    if _IMAGES_FAULT.search(lowered) and not any(sign in lowered for sign in _MACHINES_FAULT):
        advice = "Check its ENTRYPOINT, CMD, USER and WORKDIR, and the mount points."
        return ReasonCode.IMAGE_INVALID, f"The image cannot be run: {one_line(words)} {advice}"
    return ReasonCode.ENGINE_FAILED, f"The engine could not start the container: {one_line(words)}"


def _stopped_by_others(facts: Facts) -> Verdict:
    if facts.stop is Stop.CANCELED:
        return _failed(facts, ReasonCode.CANCELED_BY_USER, "The task was canceled at its owner's wish.")
    if facts.stop is Stop.DRAINED:
        return _failed(
            facts, ReasonCode.DRAINED, "The worker was told to stop; the task goes back to the queue."
        )
    if facts.stop is Stop.PREVENTED:
        return _failed(facts, facts.prevented_code or ReasonCode.INTERNAL_ERROR, facts.detail)
    return _failed(
        facts, ReasonCode.ENGINE_FAILED, f"The container engine failed while the model ran: {facts.detail}"
    )


def _stopped_by_limit(facts: Facts) -> Verdict:
    limits = facts.lease.limits
    if facts.stop is Stop.TIMED_OUT:
        return _failed(
            facts,
            ReasonCode.TIMED_OUT,
            f"The model ran longer than its limit of {limits.time_seconds:g} s and was stopped; raise the "
            "model's time_seconds, or send less.",
        )
    if facts.stop is Stop.OUTPUT_TOO_LARGE:
        return _failed(facts, ReasonCode.OUTPUT_TOO_LARGE, facts.detail)
    return _failed(facts, ReasonCode.NODE_FULL, facts.detail)


def _ended_by_itself(facts: Facts) -> Verdict:
    code = facts.exit_code
    if code == 0:
        return Verdict(code=None, sentence="", exit_code=0)
    if code is None or code in _KILLED:
        return _failed(
            facts,
            ReasonCode.ENGINE_FAILED,
            "The container was killed by something other than the model, its limits or this worker.",
        )
    init = _INIT_WORDS.match(facts.last_line)
    if code in _NOT_RUNNABLE and init is not None:
        return _failed(
            facts,
            ReasonCode.IMAGE_INVALID,
            f"The image's program cannot be run: {init['words']}. Check its ENTRYPOINT and CMD.",
        )
    if code == _FILE_TOO_LARGE:
        limit = _size(facts.lease.limits.output_bytes)
        return _failed(
            facts,
            ReasonCode.OUTPUT_TOO_LARGE,
            f"The model wrote a single file larger than its limit of {limit}.",
        )
    said = f": {facts.last_line}" if facts.last_line else ", and wrote nothing to its log."
    strict = facts.lease.sandbox.profile is SandboxProfile.STRICT
    hint = _HINT if strict and _REFUSED.search(facts.last_line) else ""
    said = said.rstrip(".") if hint else said
    return _failed(facts, ReasonCode.EXIT_NONZERO, f"The model ended with exit code {code}{said}{hint}")


def last_line(tail: bytes, longest: int = 300) -> str:
    """The last line of a log that says something, fit to be shown: no control characters, not too long."""
    lines = [one_line(line) for line in tail.decode("utf-8", "replace").splitlines()]
    spoken = [line for line in lines if line]
    return spoken[-1][:longest] if spoken else ""


def _failed(facts: Facts, code: ReasonCode, sentence: str) -> Verdict:
    return Verdict(code=code, sentence=sentence, exit_code=facts.exit_code)


def _size(size_bytes: int) -> str:
    value = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:g} {unit}"
        value /= 1024
    return f"{value:.4g} GiB"
