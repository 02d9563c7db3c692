"""Watching a running model: each second its output, its writable layer, the node's disk, its time and its
progress.

An attempt starts one watch per run. It only looks and reports; the attempt's loop decides and kills.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from consumer.attempt.events import Emit, Stopped
from consumer.attempt.progress import read_progress
from consumer.attempt.verdict import Stop
from consumer.node.usage import Usage, disk_shortage, excess, measure
from contracts.messages import Limits, Progress
from serving.logs import same_work

INTERVAL_SECONDS = 1.0
# Counting 100,000 files takes a fraction of a second; it must not take more than a tenth of a core.
_REST_FACTOR = 10
# However long counting takes, a model must not write unseen for longer than this.
_LONGEST_REST_SECONDS = 30.0
# Ten times what a package manager writes; counting them takes a few seconds.
_LAYER_FILES = 1_000_000
_LAYER = "What the model wrote outside its output"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What to look at. ``deadline`` is a ``time.monotonic()``; ``layer`` is null where it cannot be seen.

    ``ask_layer`` then asks the engine how much is in it; null where nothing can be written to it.
    """

    output: Path
    progress_directory: Path
    progress_file: str
    layer: Path | None
    layer_bytes: int
    ask_layer: Callable[[], int] | None = None
    limits: Limits
    minimum_free_bytes: int
    deadline: float


class Watch:
    """A thread that samples until it is closed or has reported that a limit is passed."""

    def __init__(self, watched: Watched, emit: Emit, report: Callable[[Progress], None]) -> None:
        self._watched = watched
        self._emit = emit
        self._report = report
        self._closed = Event()
        self._thread = Thread(target=same_work(self._run), name="watch", daemon=True)

    def start(self) -> None:
        """Begin; the first sample is taken after a second, which most small tasks never see."""
        self._thread.start()

    def close(self) -> None:
        """End without waiting."""
        self._closed.set()

    def _run(self) -> None:
        watched = self._watched
        next_count = 0.0
        while not self._closed.wait(max(0.0, min(INTERVAL_SECONDS, watched.deadline - time.monotonic()))):
            began = time.monotonic()
            stopped = time_or_disk(watched)
            if stopped is None and began >= next_count:
                stopped = too_much(watched)
                ended = time.monotonic()
                next_count = ended + rest_after(ended - began)
            if stopped is not None:
                self._emit(stopped)
                return
            progress = read_progress(watched.progress_directory / watched.progress_file)
            if progress is not None:
                self._report(progress)


def rest_after(counting_seconds: float) -> float:
    """How long not to count after having counted for so long."""
    rest = _REST_FACTOR * counting_seconds
    # The interval itself is a rest already.
    return 0.0 if rest < INTERVAL_SECONDS else min(rest, _LONGEST_REST_SECONDS)


def time_or_disk(watched: Watched) -> Stopped | None:
    """What costs nothing to look at, so each second: the time, and what the disks have left."""
    if time.monotonic() >= watched.deadline:
        return Stopped(stop=Stop.TIMED_OUT)
    for place in (watched.output, watched.layer):
        shortage = None if place is None else disk_shortage(place, watched.minimum_free_bytes)
        if shortage is not None:
            return Stopped(
                stop=Stop.NODE_FULL, detail=f"{shortage}, and the model was stopped; free some space."
            )
    return None


def too_much(watched: Watched) -> Stopped | None:
    """What has to be counted: the output, and what was written beside it."""
    sentence = output_excess(watched.output, watched.limits) or _side_excess(watched)
    return None if sentence is None else Stopped(stop=Stop.OUTPUT_TOO_LARGE, detail=sentence)


def output_excess(output: Path, limits: Limits) -> str | None:
    """A sentence when the output passes the model's limits."""
    usage = measure(output, limits.output_bytes, limits.output_files)
    return excess(usage, limits.output_bytes, limits.output_files, "The output")


def _side_excess(watched: Watched) -> str | None:
    limits = watched.limits
    progress = measure(watched.progress_directory, limits.output_bytes, limits.output_files)
    sentence = excess(
        progress, limits.output_bytes, limits.output_files, "The directory of the progress file"
    )
    if sentence is None and watched.layer is not None:
        layer = measure(watched.layer, watched.layer_bytes, _LAYER_FILES)
        sentence = excess(layer, watched.layer_bytes, _LAYER_FILES, _LAYER)
    elif sentence is None and watched.ask_layer is not None:
        asked = Usage(size_bytes=watched.ask_layer(), files=0)
        sentence = excess(asked, watched.layer_bytes, _LAYER_FILES, _LAYER)
    return sentence
