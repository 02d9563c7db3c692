"""The images that this installation pulled: which they are, when they were last used, and who uses one now.

Attempts enter to use an image, ``room.py`` to remove one. Only what is written down here is ever removed: an
image that somebody built or pulled on this node by hand may be the only one there is. Each has a file of its
own that names what it was pulled as; it is held by those who use the image and as old as its last use.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event

from consumer.node.eviction import Entry, Kind
from consumer.node.fetching import disk_failure
from consumer.node.holds import alone, held
from consumer.node.images import NO_SPACE, repository_of, resolve_image
from consumer.outside.engine import Engine, LocalImage
from consumer.outside.errors import EngineError, PreventedError, RefusedError
from contracts.messages import ImageSpec
from contracts.reasons import ReasonCode

_RECORD = re.compile(r"[0-9a-f]{64}\.pulled")
# An image that is removed between being found and being held is looked for again, so often at most.
_TRIES = 5


class PulledImages:
    """The records below one directory."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory

    def use(
        self,
        spec: ImageSpec,
        abandoned: Event,
        uses: ExitStack,
        *,
        pulling: Callable[[], None],
        relieve: Callable[[], bool] = lambda: False,
    ) -> LocalImage:
        """The image to run, pulled if need be; raises as ``resolve_image`` does, and ``AbandonedError``.

        It stays until ``uses`` is closed, and from then on for as long as a container of it exists.
        ``relieve`` makes room for a pull that found none, and says whether it could.
        """

        def pull(reference: str) -> None:
            try:
                self._pull(reference, abandoned)
            except RefusedError as error:
                if NO_SPACE not in str(error).lower() or not relieve():
                    raise
                self._pull(reference, abandoned)

        try:
            for _ in range(_TRIES):
                found = resolve_image(self._engine, spec, pulling=pulling, pull=pull)
                record = self._record(found.image_id)
                if not record.exists():
                    # Not ours to remove, so nothing has to be said.
                    return found
                with ExitStack() as use:
                    use.enter_context(held(record, abandoned))
                    if self._engine.find_image(found.image_id) is not None:
                        uses.push(use.pop_all())
                        return found
        except OSError as error:
            raise disk_failure(error) from error
        raise PreventedError(
            ReasonCode.NODE_FULL, f"The node has no room to keep the image {spec.tag}; free some space there."
        )

    def entries(self, disk: int) -> list[Entry]:
        """All that were pulled and are still there; ``disk`` is where the engine keeps images."""
        found: list[Entry] = []
        for record in self._records():
            image = self._engine.find_image(_image_id(record))
            if image is None:
                with alone(record) as unused:
                    if unused:
                        record.unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError):
                last_used = record.stat().st_mtime
                found.append(
                    Entry(
                        kind=Kind.IMAGE,
                        name=image.image_id,
                        size_bytes=image.size_bytes,
                        last_used=last_used,
                        disk=disk,
                    )
                )
        return found

    def references(self) -> list[str]:
        """What the images were pulled as, the most recently used first; some may be gone."""
        used: list[tuple[float, list[str]]] = []
        for record in self._records():
            with suppress(OSError):
                used.append((record.stat().st_mtime, _references(record)))
        used.sort(key=lambda each: -each[0])
        return [reference for _, references in used for reference in references]

    def remove(self, image_id: str) -> bool:
        """Remove an image unless somebody uses it, and say whether it has gone.

        Only the names that it was pulled by are taken from it: another that somebody gave it keeps it here.
        Raises ``EngineError`` and ``OSError``.
        """
        record = self._record(image_id)
        with alone(record) as unused:
            if not unused:
                return False
            try:
                for name in self._names(image_id, _references(record)):
                    self._engine.remove_image(name)
            except RefusedError:
                # A container has it, perhaps another installation's.
                return False
            record.unlink(missing_ok=True)
        return self._engine.find_image(image_id) is None

    def _names(self, image_id: str, references: list[str]) -> Iterator[str]:
        """The names that are to be taken from an image; a tag that has moved on since is another's."""
        for reference in references:
            named = self._engine.find_image(reference)
            if named is not None and named.image_id == image_id:
                yield reference
        left = self._engine.find_image(image_id)
        repositories = {repository_of(reference) for reference in references}
        for digest in left.digests if left is not None else ():
            if repository_of(digest) in repositories:
                yield digest

    def sweep(self) -> None:
        """Write down what killed processes had pulled."""
        for intent in self._directory.glob("*.pulling") if self._directory.is_dir() else ():
            with alone(intent) as unused:
                if unused:
                    self._note(intent)

    def _pull(self, reference: str, abandoned: Event) -> None:
        """Pull, and write down what came unless it was there before."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        intent = self._directory / f"{hashlib.sha256(reference.encode()).hexdigest()}.pulling"
        with held(intent, abandoned):
            # Of slots that pull the same, the first knows best what was there before.
            if not _text(intent):
                before = sorted(self._engine.image_ids())
                intent.write_text(json.dumps({"reference": reference, "before": before}))
            try:
                self._engine.pull_image(reference, abandoned)
            finally:
                with suppress(EngineError):
                    self._note(intent)

    def _note(self, intent: Path) -> None:
        """Write down what the pull that was begun here has brought, and that it has ended."""
        try:
            begun = json.loads(intent.read_text())
            reference, before = str(begun["reference"]), set(begun["before"])
        except (OSError, ValueError, KeyError, TypeError):
            # Another slot was first, or this one was killed before it had begun.
            intent.unlink(missing_ok=True)
            return
        found = self._engine.find_image(reference)
        # What has no digest was built here since then, under the same name.
        if found is not None and found.digests and found.image_id not in before:
            record = self._record(found.image_id)
            if not record.exists() or reference not in _references(record):
                # In place: a new file would not be the one that others hold.
                with record.open("a") as file:
                    file.write(f"{reference}\n")
        intent.unlink(missing_ok=True)

    def _records(self) -> list[Path]:
        listed = self._directory.iterdir() if self._directory.is_dir() else ()
        return [path for path in listed if _RECORD.fullmatch(path.name)]

    def _record(self, image_id: str) -> Path:
        return self._directory / f"{image_id.removeprefix('sha256:')}.pulled"


def _references(record: Path) -> list[str]:
    return record.read_text().split()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _image_id(record: Path) -> str:
    return f"sha256:{record.name.removesuffix('.pulled')}"
