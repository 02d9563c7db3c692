"""Which software an image holds, by what package managers left in its layers: dpkg, apk, Python. Pure but for
reading a layer.

Nothing is run: a layer's files are read as they are, and a higher layer's word replaces a lower one's.
Sources: deb-control(5), apk's "installed" database, the core metadata of Python packages, the image
specification's whiteouts.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

DPKG = "var/lib/dpkg/status"
APK = "lib/apk/db/installed"
RELEASES = ("etc/os-release", "usr/lib/os-release")
# Which certificates the image's programs trust; of interest to whoever gives the image away.
TRUSTED = "etc/ssl/certs/ca-certificates.crt"
_WANTED = re.compile(
    rf"{DPKG}|var/lib/dpkg/status\.d/[^/]+|{APK}|{'|'.join(RELEASES)}|{TRUSTED}|.*\.dist-info/METADATA"
)
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
# A file of a package manager is never larger; what is, is something else by that name.
_LARGEST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Traces:
    """What one layer says: files by path, what it removes, and directories that it empties of lower ones."""

    files: Mapping[str, bytes]
    removed: frozenset[str]
    emptied: frozenset[str]


@dataclass(frozen=True, order=True)
class Package:
    """One installed package. ``purl`` is its package URL, which says of what kind it is."""

    name: str
    version: str
    purl: str
    license: str = ""


def read_layer(path: Path) -> Traces:
    """The traces in a layer's file, compressed or not."""
    files: dict[str, bytes] = {}
    removed, emptied = set(), set()
    with tarfile.open(path) as layer:
        for entry in layer:
            name = posixpath.normpath(entry.name).lstrip("/")
            folder, last = posixpath.split(name)
            if last == _OPAQUE:
                emptied.add(folder)
            elif last.startswith(_WHITEOUT):
                removed.add(posixpath.join(folder, last.removeprefix(_WHITEOUT)))
            elif entry.isfile() and entry.size <= _LARGEST_BYTES and _WANTED.fullmatch(name):
                content = layer.extractfile(entry)
                files[name] = content.read() if content else b""
    return Traces(files, frozenset(removed), frozenset(emptied))


def overlay(layers: Iterable[Traces]) -> dict[str, bytes]:
    """The files as the image shows them, its lowest layer first."""
    seen: dict[str, bytes] = {}
    for layer in layers:
        hidden = [path for path in seen if _hides(layer, path)]
        for path in hidden:
            del seen[path]
        seen.update(layer.files)
    return seen


def _hides(layer: Traces, path: str) -> bool:
    parts = path.split("/")
    above = {"/".join(parts[:count]) for count in range(1, len(parts))}
    return not layer.removed.isdisjoint(above | {path}) or not layer.emptied.isdisjoint(above)


def packages(files: Mapping[str, bytes]) -> list[Package]:
    """All packages that these files tell of, each once."""
    release = _fields(next((files[name] for name in RELEASES if name in files), b"").decode(errors="replace"))
    distribution = release.get("ID", "linux")
    suite = f"{distribution}-{release['VERSION_ID']}" if "VERSION_ID" in release else ""
    found: set[Package] = set()
    for path, content in files.items():
        text = content.decode(errors="replace")
        if path.startswith("var/lib/dpkg/"):
            found |= set(_of_dpkg(text, distribution, suite))
        elif path == APK:
            found |= set(_of_apk(text, distribution, suite))
        elif path.endswith("/METADATA"):
            found |= set(_of_python(text))
    return sorted(found)


def _of_dpkg(text: str, distribution: str, suite: str) -> Iterator[Package]:
    for paragraph in _paragraphs(text):
        # What was removed may have left its settings, and its paragraph.
        if paragraph.get("Status", "install ok installed").endswith(" installed") and "Version" in paragraph:
            architecture = paragraph.get("Architecture", "")
            yield _package(
                "deb", distribution, paragraph["Package"], paragraph["Version"], architecture, suite
            )


def _of_apk(text: str, distribution: str, suite: str) -> Iterator[Package]:
    for block in text.split("\n\n"):
        facts = dict(line.split(":", 1) for line in block.splitlines() if line[1:2] == ":")
        if "P" in facts and "V" in facts:
            made = _package("apk", distribution, facts["P"], facts["V"], facts.get("A", ""), suite)
            yield Package(made.name, made.version, made.purl, facts.get("L", ""))


def _package(kind: str, distribution: str, name: str, version: str, architecture: str, suite: str) -> Package:
    qualifiers = "&".join(
        f"{key}={quote(value, safe='')}"
        for key, value in (("arch", architecture), ("distro", suite))
        if value
    )
    where = f"pkg:{kind}/{quote(distribution)}/{quote(name, safe='')}@{quote(version, safe='.~')}"
    return Package(name, version, where + (f"?{qualifiers}" if qualifiers else ""))


def _of_python(text: str) -> Iterator[Package]:
    head = next(iter(_paragraphs(text)), {})
    name, version = head.get("Name", ""), head.get("Version", "")
    if name and version:
        plain = re.sub(r"[-_.]+", "-", name).lower()
        licence = head.get("License-Expression", "")
        yield Package(name, version, f"pkg:pypi/{quote(plain, safe='')}@{quote(version, safe='.')}", licence)


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Control paragraphs; a continued line belongs to nothing that is asked for here."""
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        for line in block.splitlines():
            if not line[:1].isspace() and ":" in line:
                name, value = line.split(":", 1)
                fields.setdefault(name, value.strip())
        if fields:
            yield fields


def _fields(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}
