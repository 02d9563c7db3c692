"""Getting the image that a lease asks for: what lies here already, or a pull, and what a failed pull means.

An attempt enters from a thread of its own. Which image to use is a pure choice; only ``resolve_image``
talks to the engine, through ``pull`` where an image has to come. None is ever built, tagged or removed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from consumer.outside.engine import Engine, LocalImage
from consumer.outside.errors import NotFoundError, PreventedError, RefusedError
from consumer.outside.wording import one_line
from contracts.messages import ImageSpec, PullPolicy, ResolvedImage
from contracts.reasons import ReasonCode

# Words by which engines and registries say that asking again is pointless.
_NOT_THERE = (
    "manifest unknown", "not found", "repository does not exist", "access denied", "denied:",
    "unauthorized", "authentication required", "invalid reference", "no matching manifest",
)  # fmt: skip
# Words by which they say that nobody could be asked. These win: "lookup …: host not found" is no missing
# image.
_NOT_REACHED = (
    "no such host", "connection refused", "timeout", "timed out", "network is unreachable",
    "no route to host", "server misbehaving", "temporary failure", "tls handshake", "x509",
    "connection reset", "unexpected eof", ": eof", "dial tcp",
    "toomanyrequests", "service unavailable", "context deadline exceeded",
)  # fmt: skip

# What an engine says whose disk is full.
NO_SPACE = "no space left on device"


def resolve_image(
    engine: Engine, spec: ImageSpec, *, pulling: Callable[[], None], pull: Callable[[str], None]
) -> LocalImage:
    """The image to run, pulled if need be; ``pulling`` is called when a registry is about to be asked.

    ``pull`` fetches a reference. Raises ``PreventedError`` with ``image_unavailable``, ``pull_failed`` or
    ``node_full``, ``EngineError``, and what ``pull`` raises beside that.
    """
    if spec.pull_policy is PullPolicy.IF_MISSING:
        try:
            local = _local_image(engine, spec)
        except RefusedError as error:
            # The reference itself is at fault.
            raise pull_failure(spec.tag, str(error), spec.tag) from error
        if local is not None:
            return local
    pulling()
    by_digest = spec.pull_policy is PullPolicy.IF_MISSING and spec.digest is not None
    reference = spec.digest if by_digest and spec.digest else tagged(spec.tag)
    try:
        pull(reference)
    except (RefusedError, NotFoundError) as error:
        # An engine answers 404 itself where the registry says so before any progress was made.
        raise pull_failure(spec.tag, str(error), reference) from error
    pulled = engine.find_image(reference)
    if pulled is None:
        raise PreventedError(
            ReasonCode.PULL_FAILED, f"The image {spec.tag} was pulled, but the engine does not have it."
        )
    if spec.pull_policy is PullPolicy.IF_MISSING and spec.image_id not in {None, pulled.image_id}:
        raise PreventedError(ReasonCode.IMAGE_UNAVAILABLE, _changed(spec))
    return pulled


def _local_image(engine: Engine, spec: ImageSpec) -> LocalImage | None:
    if spec.image_id is not None:
        pinned = engine.find_image(spec.image_id)
        if pinned is not None:
            return pinned
    tagged_image = engine.find_image(spec.tag)
    if tagged_image is not None and spec.image_id in {None, tagged_image.image_id}:
        return tagged_image
    if tagged_image is not None and spec.digest is None:
        # A build of this node under the same tag: no registry can have what was pinned.
        raise PreventedError(ReasonCode.IMAGE_UNAVAILABLE, _changed(spec))
    return None


def resolved(image: LocalImage, tag: str) -> ResolvedImage:
    """What the server records: the id, and the digest in the tag's own repository where there is one."""
    repository = repository_of(tag)
    own = [digest for digest in image.digests if digest.partition("@")[0] == repository]
    digest = next(iter(own or image.digests), None)
    return ResolvedImage(image_id=image.image_id, digest=digest)


def tagged(reference: str) -> str:
    """``reference`` with the tag that is meant when it has none; an engine would pull them all."""
    has_tag = ":" in reference.rpartition("/")[2] or "@" in reference
    return reference if has_tag else f"{reference}:latest"


def pull_failure(tag: str, words: str, reference: str) -> PreventedError:
    """What a refused pull of ``tag`` means, from the engine's ``words`` about the ``reference`` pulled."""
    lowered = _without_names(words, reference).lower()
    if NO_SPACE in lowered:
        return PreventedError(
            ReasonCode.NODE_FULL, f"The node has no room for the image {tag}; free some space there."
        )
    if any(sign in lowered for sign in _NOT_REACHED):
        return PreventedError(
            ReasonCode.PULL_FAILED,
            f"The image {tag} is not on this node, and its registry cannot be reached ({_words(words)}). "
            "Either build it on this node with docker build under exactly this tag, or let the node reach "
            "the registry.",
        )
    if any(sign in lowered for sign in _NOT_THERE):
        return PreventedError(
            ReasonCode.IMAGE_UNAVAILABLE,
            f"The image {tag} is not on this node and cannot be pulled ({_words(words)}). Check the tag, "
            "build it on this node with docker build, or push it to a registry that the node may read.",
        )
    return PreventedError(ReasonCode.PULL_FAILED, f"Pulling the image {tag} failed: {_words(words)}.")


def _changed(spec: ImageSpec) -> str:
    return (
        f"The image that this version of the model was registered with ({spec.image_id}) is no longer "
        f"available: {spec.tag} is another image now. Update the model's container_tag to make a new version."
    )


def _without_names(words: str, reference: str) -> str:
    """``words`` without the names in ``reference``: an image called "timeout" has not timed out."""
    repository = repository_of(reference)
    path = repository.partition("/")[2] or repository
    asked_for = f"manifests/{reference[len(repository) + 1 :]}"
    for name in (reference, repository, path, asked_for):
        words = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "", words, flags=re.IGNORECASE)
    return words


def repository_of(tag: str) -> str:
    """``tag`` without its tag or digest."""
    head, slash, last = tag.partition("@")[0].rpartition("/")
    return head + slash + last.partition(":")[0]


def _words(words: str) -> str:
    return one_line(words, 200).rstrip(". ")
