"""The machine's own Debian sources, as the lines that a new system is bootstrapped from. Pure.

Third parties' sources are left out: what they sign and which suites they have is their own affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Where Debian and Ubuntu keep them; anything signed by another key is somebody else's.
DISTRIBUTION_KEYRINGS = ("debian-archive", "ubuntu-archive")


@dataclass(frozen=True)
class Source:
    """One line of sources.list: where packages come from."""

    uri: str
    suite: str
    components: tuple[str, ...]

    def line(self) -> str:
        """As sources.list writes it."""
        return f"deb {self.uri} {self.suite} {' '.join(self.components)}"


def choose(files: dict[str, str], suite: str) -> list[Source]:
    """The distribution's own sources among apt's files (by name): those of ``suite`` and its updates."""
    found: list[Source] = []
    for name, text in sorted(files.items()):
        read = (
            _deb822(text) if name.endswith(".sources") else _one_line(text) if name.endswith(".list") else []
        )
        found += [source for source in read if _belongs(source, suite)]
    return list(dict.fromkeys(found))


def _belongs(source: Source, suite: str) -> bool:
    of_suite = source.suite == suite or source.suite in {f"{suite}-updates", f"{suite}-security"}
    return of_suite and "main" in source.components


def _one_line(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words or words[0] != "deb":
            continue
        options = ""
        if len(words) > 1 and words[1].startswith("["):
            end = next((i for i, word in enumerate(words) if word.endswith("]")), len(words))
            options, words = " ".join(words[1 : end + 1]), ["deb", *words[end + 1 :]]
        if len(words) >= 4 and _ours(options):
            yield Source(words[1], words[2], tuple(words[3:]))


def _deb822(text: str) -> Iterator[Source]:
    for paragraph in text.split("\n\n"):
        fields = _fields(paragraph)
        disabled = fields.get("enabled", "yes").lower() in {"no", "false", "0"}
        if disabled or "deb" not in fields.get("types", "").split() or not _ours(fields.get("signed-by", "")):
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, components)


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _ours(options: str) -> bool:
    if "signed-by" not in options.lower() and "/" not in options:
        return True
    return any(keyring in options for keyring in DISTRIBUTION_KEYRINGS)
