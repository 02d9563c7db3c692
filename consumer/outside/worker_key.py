"""The worker's key, which an operator may renew while we run: a refused one is looked up in its file again.

Only ``server.py`` asks for it, with every call; it is never written anywhere.
"""

from __future__ import annotations

import threading
from pathlib import Path


class WorkerKey:
    """One key; ``file`` is where a renewed one would be found, None where there is no such place."""

    def __init__(self, text: str, file: Path | None = None) -> None:
        self._text = text
        self._file = file
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        """The key as it is known now."""
        return self._text

    def renewed_since(self, refused: str) -> bool:
        """Whether there is another key than ``refused`` by now, in the file or because somebody was first."""
        with self._lock:
            if self._text == refused and self._file is not None:
                try:
                    self._text = self._file.read_text().strip() or refused
                except (OSError, UnicodeDecodeError):
                    # Being replaced at this moment, perhaps: it is read again at the next refusal.
                    return False
            return self._text != refused
