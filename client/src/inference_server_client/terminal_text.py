"""Text of strangers made fit for a terminal: what servers and models send passes here before it is shown.

A log line or a file name may carry escape sequences that recolour, retitle or rewrite a terminal, or
characters that reverse what is read. Nothing here prints.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

# Control sequences (colours, cursor), and strings for the terminal (titles, links) up to their end. A string
# without an end is not matched: its escape character is made visible below and its text stays.
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]{0,4096}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-OQ-WYZ`-~]"
)
# Categories that draw nothing or move what is drawn: controls, surrogates, line and paragraph separators.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# The bidirectional controls can make a line read as something else; other format characters join emoji.
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LONGEST_LINE = 16 * 1024


def sanitise(text: str, *, newlines: bool = False) -> str:
    """``text`` without escape sequences, and with other unsafe characters shown as ``\\xNN`` or ``\\uNNNN``.

    Tabs stay; line feeds stay where ``newlines`` says so. The result draws only what it says.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = "\t\n" if newlines else "\t"
    return "".join(
        character if character in kept or not _is_unsafe(character) else _visible(character)
        for character in _ESCAPE_SEQUENCE.sub("", text)
    )


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE_CATEGORIES or character in _BIDIRECTIONAL


def _visible(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class LineSplitter:
    """Turns a stream of log bytes into whole, sanitised lines.

    A lone carriage return (a progress bar's) ends a line like a line feed. Bytes that are not UTF-8 become
    the replacement character. A line without an end is cut, so that memory stays bounded.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes."""
        text = self._rest + self._decoder.decode(data)
        # A carriage return at the very end may be half of a CR LF; it waits for what follows.
        held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        *lines, self._rest = text.split("\n")
        while len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest[:_LONGEST_LINE])
            self._rest = self._rest[_LONGEST_LINE:]
        self._rest += held
        return [sanitise(line) for line in lines]

    def finish(self) -> list[str]:
        """The last line, when the stream ended without a line feed."""
        text = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        self._decoder.reset()
        return [sanitise(line) for line in text.replace("\r", "\n").split("\n") if line]
