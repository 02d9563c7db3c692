"""Quantities as people write them, and strangers' text made fit for a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_server_client.quantities import format_duration, format_size, parse_duration, parse_size
from inference_server_client.terminal_text import LineSplitter, sanitise


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4g", 4 << 30), ("512m", 512 << 20), ("1.5GiB", 3 << 29), ("64 KB", 64 << 10), ("2T", 2 << 40),
        ("1048576", 1 << 20), ("10b", 10),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "4x", "g", "1e9", "inf", "nan", "4gg", "99999999999t", "٤g"])
def test_what_is_no_size(text: str):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("1h30m", 5400),
        ("90s", 90),
        ("45", 45),
        ("2d", 172800),
        ("1.5h", 5400),
        ("1h 5min", 3900),
    ],
)
def test_durations(text: str, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "-5m", "5 minutes", "m", "1h30", "inf", "nan", "999999999d", "1e3"]
)
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_quantities_for_people():
    sizes = [format_size(n) for n in (0, 1023, 1536, 12 << 30, 5 << 50)]
    assert sizes == ["0 B", "1023 B", "1.5 KiB", "12 GiB", "5120 TiB"]
    spans = [format_duration(s) for s in (0.44, 12.9, 185, 7200, 3 * 86400 + 4 * 3600)]
    assert spans == ["0.4s", "12s", "3m05s", "2h00m", "3d04h"]


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never ends", "\\x1b]0;never ends"),
        ("\x9b2Jc1", "c1"),
        ("\x1bcreset", "reset"),
        ("a\x08\x00\x7fb", "a\\x08\\x00\\x7fb"),
        ("tab\tstays", "tab\tstays"),
        ("line\nbreak", "line\\x0abreak"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("bad\udcffname", "bad\\udcffname"),
        ("ä 医学 👩‍🔬", "ä 医学 👩‍🔬"),
    ],
)
def test_unsafe_text_is_removed_or_shown(raw: str, safe: str):
    assert sanitise(raw) == safe


@given(st.text(st.characters(categories=["Cc", "Cs", "Lu", "Ps", "Nd", "Po", "Zl"]), max_size=40))
def test_nothing_that_moves_a_terminal_is_left(text: str):
    safe = sanitise(text)
    assert not any(
        (ord(c) < 32 and c != "\t") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in safe
    )


def test_lines_are_whole_however_the_bytes_come():
    splitter = LineSplitter()
    lines = [line for byte in "a\r\nb\rß\n\nend".encode() for line in splitter.feed(bytes([byte]))]
    assert lines + splitter.finish() == ["a", "b", "ß", "", "end"]


def test_a_line_without_an_end_is_cut():
    splitter = LineSplitter()
    lines = splitter.feed(b"x" * 100_000)
    assert max(map(len, lines)) <= 16 * 1024
    assert len("".join(lines + splitter.finish())) == 100_000


@given(st.binary(max_size=60), st.integers(1, 7))
def test_chunk_edges_lose_nothing(data: bytes, size: int):
    whole, parts = LineSplitter(), LineSplitter()
    expected = whole.feed(data) + whole.finish()
    got = [line for i in range(0, len(data), size) for line in parts.feed(data[i : i + size])]
    assert got + parts.finish() == expected
