"""What counts as progress in a file that a stranger writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consumer.attempt.progress import TAIL_BYTES, parse_progress, read_progress
from contracts.messages import Progress


@pytest.mark.parametrize(
    ("tail", "progress"),
    [
        (b"", None),
        (b'{"fraction": 0.5}', Progress(fraction=0.5, message=None)),
        (b'{"fraction": 1, "message": "done"}', Progress(fraction=1.0, message="done")),
        (b'{"fraction": 0.1}\n{"fraction": 0.2}\n', Progress(fraction=0.2, message=None)),
        (b'{"fraction": 0.1}\n{"fraction": 0.', Progress(fraction=0.1, message=None)),
        (b'{"fraction": 0.1}\nnonsense\n[1]\nnull\n', Progress(fraction=0.1, message=None)),
        (b'{"fraction": NaN}', None),
        (b'{"fraction": 1.5}', None),
        (b'{"fraction": true}', None),
        (b'{"fraction": "1"}', None),
        (b'{"message": 3}', None),
        (b'{"message": "\\u001b[31mred\\n"}', Progress(fraction=None, message="[31mred")),
        (b'{"message": "' + b"x" * 5000 + b'"}', Progress(fraction=None, message="x" * 200)),
        (b"[" * 50_000, None),
        (b"\xff\xfe", None),
    ],
)
def test_the_last_valid_line_counts(tail: bytes, progress: Progress | None) -> None:
    assert parse_progress(tail) == progress


def test_a_link_a_pipe_and_a_directory_are_no_progress(tmp_path: Path) -> None:
    # Given what a model may put in the file's place
    (tmp_path / "secret").write_text('{"fraction": 0.5}')
    (tmp_path / "link").symlink_to("secret")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    # Then none is read, and none is waited for
    for name in ("link", "pipe", "directory", "absent"):
        assert read_progress(tmp_path / name) is None


def test_only_the_end_of_a_huge_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    file.write_bytes(b"x" * 5 * TAIL_BYTES + b'\n{"fraction": 0.5}\n')
    assert read_progress(file) == Progress(fraction=0.5, message=None)
