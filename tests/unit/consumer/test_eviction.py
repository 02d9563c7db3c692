"""What leaves a disk, and in which order."""

from __future__ import annotations

import pytest

from consumer.node.eviction import DiskState, Entry, Kind, above_watermark, by_last_use, unused

NOW = 1_000_000.0
DAY = 86_400.0


def entry(name: str, age: float, size: int = 100, kind: Kind = Kind.CONTENT) -> Entry:
    return Entry(kind=kind, name=name, size_bytes=size, last_used=NOW - age, disk=1)


def names(entries: list[Entry]) -> list[str]:
    return [found.name for found in entries]


def disk(free: int) -> DiskState:
    return DiskState(total_bytes=1000, free_bytes=free)


def test_the_least_recently_used_goes_first_of_two_the_larger() -> None:
    entries = [entry("young", 10), entry("old small", 50), entry("old large", 50, size=900)]
    assert names(by_last_use(entries)) == ["old large", "old small", "young"]


@pytest.mark.parametrize(
    ("free", "gone"),
    [
        # At the high watermark itself nothing has to go.
        (150, []),
        # From 851 used down to 750: two of a hundred.
        (149, ["c", "i"]),
        (0, ["c", "i", "b"]),
    ],
)
def test_above_the_high_watermark_things_go_until_the_low_one(free: int, gone: list[str]) -> None:
    entries = [entry("a", 200), entry("b", 300), entry("i", 400, kind=Kind.IMAGE), entry("c", 500)]
    assert names(above_watermark(entries, disk(free), 85, 75, NOW)) == gone


def test_where_others_have_filled_the_disk_all_goes_but_what_was_just_used() -> None:
    entries = [entry("a", 119), entry("b", 120), entry("c", 5000)]
    assert names(above_watermark(entries, disk(0), 85, 75, NOW)) == ["c", "b"]


def test_what_nobody_used_for_long_goes_whatever_the_room_but_images_stay() -> None:
    entries = [entry("a", 31 * DAY), entry("b", 29 * DAY), entry("i", 90 * DAY, kind=Kind.IMAGE)]
    assert names(unused(entries, NOW, 30 * DAY)) == ["a"]


def test_a_disk_of_no_size_is_not_full() -> None:
    assert DiskState(total_bytes=0, free_bytes=0).used_percent == 0
