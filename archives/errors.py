"""What can be wrong with a zip, or with a directory that is to become one.

Both services enter this room to catch what the other rooms of ``archives`` raise::

    ArchiveError (ValueError)          the zip cannot be accepted
    ├── ArchiveTooLargeError           it is sound as far as was looked, but beyond a limit
    └── OutputError                    a directory cannot be packed
        ├── OutputTooLargeError        more bytes or files than allowed
        ├── OutputInvalidError         it changed while it was read, or no zip can hold it
        └── EmptyOutputError           nothing lies in it
    UnpackingAbandonedError (Exception)    nobody wants the files any more; nothing is wrong with the zip

The text of each is one sentence for people that names the entry at fault. Names come from strangers, so a
message shows them only through ``quoted``. Failures of the disk stay the ``OSError`` that they are: they are
ours, never the caller's.
"""

from __future__ import annotations

# Long enough to recognise a file by, short enough for one line of a log or a terminal.
_SHOWN_CHARACTERS = 120


class ArchiveError(ValueError):
    """The zip cannot be accepted; the text says why, and which entry is at fault."""


class ArchiveTooLargeError(ArchiveError):
    """The zip holds more than the limits allow."""


class OutputError(ArchiveError):
    """The directory cannot be packed."""


class OutputTooLargeError(OutputError):
    """The directory holds more bytes or files than allowed."""


class OutputInvalidError(OutputError):
    """The directory changed while it was read, or holds something that no zip can carry."""


class EmptyOutputError(OutputError):
    """Nothing lies in the directory."""


class UnpackingAbandonedError(Exception):
    """Unpacking was stopped because its caller said so; what was written is not whole."""

    def __init__(self) -> None:
        super().__init__("Unpacking was stopped before its end: the files are no longer wanted.")


def quoted(name: str | bytes) -> str:
    """``name`` in quotation marks, safe to show.

    Bytes that are not UTF-8, control characters and characters that change the direction of writing are
    shown as escapes; a long name loses its middle.
    """
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    if len(text) > _SHOWN_CHARACTERS:
        half = _SHOWN_CHARACTERS // 2
        text = f"{text[:half]}…{text[-half:]}"
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return f'"{shown}"'
