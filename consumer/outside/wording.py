"""Strangers' words (a model's, an engine's, a registry's) made fit to stand in a sentence of ours.

Whoever writes a reason for people enters. It only cleans and shortens; what words mean is judged elsewhere.
"""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def one_line(text: str, longest: int = 500) -> str:
    """``text`` on one line: no control characters, no runs of spaces, not too long."""
    without_escapes = _ESCAPES.sub("", text)
    return " ".join("".join(c if c.isprintable() else " " for c in without_escapes).split())[:longest]
