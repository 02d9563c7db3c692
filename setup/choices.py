"""Variables of commands that are yes or no: `PURGE=1`, `EXAMPLE=1`. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from setup.console import SetupError


def read(environment: Mapping[str, str], name: str) -> bool:
    """Whether the variable is 1; unset and empty are 0."""
    text = environment.get(name) or "0"
    if text not in {"0", "1"}:
        raise SetupError(f"{name} must be 0 or 1, not {text!r}.")
    return text == "1"
