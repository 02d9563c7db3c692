"""``archives.inspection``: what is refused, what must not be, and what a refusal may cost."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import zipfile

import pytest

from archives.errors import ArchiveError, ArchiveTooLargeError, quoted
from archives.inspection import ZipFacts, inspect_zip
from archives.limits import ZipLimits
from tests.bad_zips import BAD_ZIPS, RawEntry, raw_zip

LIMITS = ZipLimits()


class CountingFile(io.BytesIO):
    """Counts the reads that a ranged store would have to serve."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_bad_zip_is_refused_with_a_sentence(name: str) -> None:
    # given
    build, words = BAD_ZIPS[name]
    bad = build()
    # when
    started = time.monotonic()
    with pytest.raises(ArchiveError) as refusal:
        inspect_zip(io.BytesIO(bad), LIMITS)
    seconds = time.monotonic() - started
    # then
    sentence = str(refusal.value)
    assert words in sentence
    assert sentence.endswith(".")
    assert sentence.isprintable()
    assert seconds < 2


def test_no_bad_zip_takes_more_than_64_mib() -> None:
    # given a fresh process that has built all of them
    program = """
import io, resource
from archives.errors import ArchiveError
from archives.inspection import inspect_zip
from archives.limits import ZipLimits
from tests.bad_zips import BAD_ZIPS, RawEntry, raw_zip
zips = [build() for build, _ in BAD_ZIPS.values()]
# The most that the limits let through to the end: names that take all the room there is, the last one twice.
names = [b"%05d" % number + b"N" * 280 for number in range(45_000)]
entries = [RawEntry(name[:140] + b"/" + name[140:], data=b"") for name in [*names, names[-1]]]
zips.append(raw_zip(entries))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for bad in zips:
    try:
        inspect_zip(io.BytesIO(bad), ZipLimits())
    except ArchiveError:
        continue
    raise SystemExit("accepted")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    # when
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # then
    assert int(result.stdout) < 64 * 1024


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"a.txt": b""},
        {"a/b/c.txt": b"x", "a/b/d.txt": b"y", "a.txt": b"z"},
        {"ünïcödé/目録.txt": b"x", "emoji 🎉.txt": b"y"},
        {"a": b"x", "a b": b"y", "a!/c": b"z"},
        {"..a/b..": b"x", "...": b"y", "C/x:y": b"z"},
    ],
)
def test_sound_zip_is_accepted(files: dict[str, bytes]) -> None:
    # when
    facts = inspect_zip(io.BytesIO(zip_of(files)), LIMITS)
    # then
    assert facts == ZipFacts(len(files), sum(map(len, files.values())))


def test_highly_compressible_image_is_no_bomb() -> None:
    # given an empty mask of 300 MB, packed as well as deflate can
    mask = zip_of({"mask.nii": bytes(300_000_000)})
    assert 300_000_000 / len(mask) > 900
    # when
    facts = inspect_zip(io.BytesIO(mask), LIMITS)
    # then
    assert facts.unpacked_bytes == 300_000_000


def test_comment_and_directories_are_accepted() -> None:
    # given
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.mkdir("a")
        archive.mkdir("a/empty")
        archive.writestr("a/file", b"x")
        archive.comment = b"made by PK\x05\x06 somebody" + bytes(30)
    # when
    facts = inspect_zip(buffer, LIMITS)
    # then
    assert facts.entries == 3


def test_names_without_the_utf8_flag_are_taken_as_what_they_are() -> None:
    # given UTF-8 as macOS writes it, and code page 437 as old Windows does
    zipped = raw_zip([RawEntry("größe".encode()), RawEntry("größe2".encode("cp437"))])
    # when
    facts = inspect_zip(io.BytesIO(zipped), LIMITS)
    # then
    assert facts.entries == 2


def test_zip64_is_understood() -> None:
    # given
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a", "w", force_zip64=True) as entry:
        entry.write(b"data")
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(70_000):
            archive.writestr(str(number), b"")
    # when
    facts = [inspect_zip(file, ZipLimits(max_entries=100_000)) for file in (buffer, many)]
    # then
    assert [f.entries for f in facts] == [1, 70_000]


def test_unpacked_size_is_limited() -> None:
    # given
    zipped = zip_of({"a": bytes(600), "b": bytes(600)})
    # when / then
    with pytest.raises(ArchiveTooLargeError, match='"b" passes that limit'):
        inspect_zip(io.BytesIO(zipped), ZipLimits(max_unpacked_bytes=1000))


def test_directory_is_read_in_few_pieces() -> None:
    # given
    file = CountingFile(raw_zip([RawEntry(b"%06d.dcm" % n) for n in range(50_000)]))
    # when
    started = time.monotonic()
    inspect_zip(file, LIMITS)
    # then
    assert file.reads <= 6
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb\x1b[31m", r'"a\nb\x1b[31m"'),
        (b"\xff\x00", r'"\xff\x00"'),
        ("a\u202eb", r'"a\u202eb"'),
        ("x" * 1000, f'"{"x" * 60}…{"x" * 60}"'),
    ],
)
def test_names_are_shown_safely(name: str | bytes, shown: str) -> None:
    assert quoted(name) == shown
