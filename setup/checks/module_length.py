"""The lint that refuses modules too long to be read in one go. Tests are left out: they grow by cases."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

LONGEST = 400
NOT_LOOKED_AT = {".git", ".venv", ".state", "tests", "build", "dist", "__pycache__"}


def too_long(modules: Iterable[tuple[Path, int]]) -> list[str]:
    """A sentence for each module that has more lines than it may."""
    return [
        f"{path} has {lines} lines; at most {LONGEST} are allowed. Find the second room in it."
        for path, lines in modules
        if lines > LONGEST
    ]


def measure(root: Path) -> list[tuple[Path, int]]:
    """Every module below ``root``, with its number of lines."""
    paths = (path.relative_to(root) for path in sorted(root.rglob("*.py")))
    return [
        (path, (root / path).read_bytes().count(b"\n"))
        for path in paths
        if not NOT_LOOKED_AT & set(path.parts)
    ]
