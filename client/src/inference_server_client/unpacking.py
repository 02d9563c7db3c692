"""Unpacks a result into a directory, trusting nothing in the zip.

Every name is checked, and every clash with what is there found, before the first byte is written. Nothing
is ever written outside the directory: not by a name, not through a link that the zip brings, nor through
one that lies there already.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from inference_server_client.errors import UnpackError
from inference_server_client.terminal_text import sanitise

_CHUNK_BYTES = 1024 * 1024
_ENCRYPTED = 0x1
# What zipfile and the decompressors below it raise for damaged bytes; ValueError: for names and offsets.
_DAMAGED: tuple[type[Exception], ...] = (
    zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, zlib.error,
)  # fmt: skip
with suppress(ImportError):  # A Python may be built without lzma; it meets no error of lzma's then.
    from lzma import LZMAError

    _DAMAGED += (LZMAError,)


def unpack(
    archive_path: Path,
    directory: Path,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Unpack into ``directory`` (made where missing); returns the files written, in the order of the zip.

    Raises ``UnpackError`` for an unsafe or damaged zip, and where files exist that ``overwrite`` does not
    allow to be replaced. Existing links are replaced, never written through.
    """
    try:
        with zipfile.ZipFile(archive_path) as archive:
            infos = archive.infolist()
            names = [_checked_name(info) for info in infos]
            _check_as_a_whole(infos, names, archive_path.stat().st_size)
            directory.mkdir(parents=True, exist_ok=True)
            _check_space(infos, directory)
            _check_target(directory, names, overwrite=overwrite)
            return _write(archive, directory, on_progress)
    except _DAMAGED as error:
        raise _unreadable() from error
    except OSError as error:
        # Damaged bzip2 data is an OSError without a number; the system's own errors have one.
        if error.errno is not None:
            raise
        raise _unreadable() from error


def _checked_name(info: zipfile.ZipInfo) -> str:
    """The entry's path without a final slash; raises ``UnpackError`` for one that is not plainly inside."""
    name = info.orig_filename
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise _unsafe(name, "a link or a device")
    if info.flag_bits & _ENCRYPTED:
        raise _unsafe(name, "encrypted")
    parts = name.removesuffix("/").split("/")
    drive_like = os.name == "nt" and ":" in name
    if "\\" in name or "\0" in name or drive_like or any(part in {"", ".", ".."} for part in parts):
        raise _unsafe(name, "a path that leads elsewhere")
    return "/".join(parts)


def _check_as_a_whole(infos: list[zipfile.ZipInfo], names: list[str], archive_bytes: int) -> None:
    if any(not 0 <= info.header_offset < archive_bytes for info in infos):
        raise _unreadable()
    if len(set(names)) != len(names):
        raise UnpackError("The result holds two entries of one name; nothing was unpacked.")
    files = {name for name, info in zip(names, infos, strict=True) if not info.is_dir()}
    for name in names:
        parents = name.split("/")[:-1]
        if any("/".join(parents[: depth + 1]) in files for depth in range(len(parents))):
            raise _unsafe(name, "inside something that is a file")
    # Entries that share their bytes are how a small zip becomes an endless one.
    if sum(info.compress_size for info in infos) > archive_bytes:
        raise UnpackError("The entries of the result overlap; nothing was unpacked.")


def _check_space(infos: list[zipfile.ZipInfo], directory: Path) -> None:
    needed, free = sum(info.file_size for info in infos), shutil.disk_usage(directory).free
    if needed > free:
        raise UnpackError(
            f"The result needs {needed} bytes, and the disk of {directory} has {free} left; "
            "nothing was unpacked."
        )


def _check_target(directory: Path, names: list[str], *, overwrite: bool) -> None:
    clashes: list[str] = []
    checked: set[Path] = set()
    for name in names:
        target = directory / name
        for parent in list(target.relative_to(directory).parents)[:-1]:
            place = directory / parent
            if place in checked:
                continue
            checked.add(place)
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise UnpackError(
                    f"{sanitise(str(place))} is in the way: a directory must be there; nothing was unpacked."
                )
        if os.path.lexists(target) and not (target.is_dir() and not target.is_symlink()):
            clashes.append(name)
    if clashes and not overwrite:
        shown = ", ".join(sanitise(name) for name in clashes[:3]) + (", …" if len(clashes) > 3 else "")
        raise UnpackError(
            f"{len(clashes)} file(s) exist already in {directory} ({shown}); "
            "nothing was unpacked. Choose another directory, or --force to replace them."
        )


def _write(
    archive: zipfile.ZipFile, directory: Path, on_progress: Callable[[int], None] | None
) -> list[Path]:
    written: list[Path] = []
    done = 0
    for info in archive.infolist():
        target = directory / _checked_name(info)
        if info.is_dir():
            if target.is_symlink() or target.is_file():
                target.unlink()
            _make_directories(directory, target)
            continue
        _make_directories(directory, target.parent)
        # Written beside and renamed: nobody sees half a file, and a link in its place is replaced.
        part = target.with_name(f".infer-{os.getpid()}.part")
        part.unlink(missing_ok=True)
        try:
            with archive.open(info) as source, part.open("xb") as stream:
                while data := source.read(_CHUNK_BYTES):
                    stream.write(data)
                    done += len(data)
                    if on_progress is not None:
                        on_progress(done)
            _replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        written.append(target)
    return written


def _make_directories(top: Path, target: Path) -> None:
    # One by one from the top: the library's own way calls itself, and results may nest deeper than it bears.
    if target.is_dir():
        return
    place = top
    for part in target.relative_to(top).parts:
        place /= part
        place.mkdir(exist_ok=True)


def _replace(part: Path, target: Path) -> None:
    try:
        part.replace(target)
    except IsADirectoryError as error:
        raise UnpackError(
            f"{sanitise(str(target))} is a directory, and the result has a file there."
        ) from error


def _unreadable() -> UnpackError:
    return UnpackError("The result is not a zip that can be read; fetch it again.")


def _unsafe(name: str, why: str) -> UnpackError:
    return UnpackError(
        f"The result is unsafe to unpack ({sanitise(name)[:200]!r} is {why}); nothing was unpacked."
    )
