"""The rules for names that people choose, and the names that headers and environment variables have.

A rule is a predicate: the service that asks makes the error of it.
"""

from __future__ import annotations

import re

TASK_ID_PATTERN = r"[0-9a-f]{32}"
MODEL_ID_PATTERN = r"[A-Za-z0-9._-]{1,128}"
# The 1.x interface let people use spaces and colons; its models keep the ids that their clients send.
CLASSIC_MODEL_ID_PATTERN = r"[A-Za-z0-9._:-](?:[A-Za-z0-9._: -]{0,126}[A-Za-z0-9._:-])?"
# The grammar of the distribution project: [host[:port]/]path[:tag][@digest], 255 characters at most.
IMAGE_REFERENCE_PATTERN = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)

LEASE_TOKEN_HEADER = "Lease-Token"  # noqa: S105 - The name of a header.
IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
REQUEST_ID_HEADER = "X-Request-Id"
# Which key the private API found in a request: its id, which is no secret.
KEY_ID_HEADER = "X-Key-Id"
NEXT_OFFSET_HEADER = "X-Next-Offset"

# What a model's container finds in its environment.
ENV_INPUT, ENV_OUTPUT, ENV_MODEL, ENV_TASK_ID, ENV_PROGRESS = (
    "INPUT", "OUTPUT", "MODEL", "TASK_ID", "PROGRESS",
)  # fmt: skip

_TASK_ID = re.compile(TASK_ID_PATTERN)
_MODEL_ID = re.compile(MODEL_ID_PATTERN)
_CLASSIC_MODEL_ID = re.compile(CLASSIC_MODEL_ID_PATTERN)
_IMAGE_REFERENCE = re.compile(IMAGE_REFERENCE_PATTERN)


def is_task_id(text: str) -> bool:
    """Whether ``text`` has the form of a task id."""
    return _TASK_ID.fullmatch(text) is not None


def is_model_id(text: str, *, classic: bool = False) -> bool:
    """Whether ``text`` may name a model; ``classic`` allows what the 1.x interface allowed.

    ``.`` and ``..`` are refused: they vanish from URL paths on their way to us.
    """
    pattern = _CLASSIC_MODEL_ID if classic else _MODEL_ID
    return pattern.fullmatch(text) is not None and text not in {".", ".."}


def is_image_reference(text: str) -> bool:
    """Whether ``text`` is a container image reference that an engine would accept."""
    return len(text) <= 255 and _IMAGE_REFERENCE.fullmatch(text) is not None
