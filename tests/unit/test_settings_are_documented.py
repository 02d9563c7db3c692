"""Every variable that a service reads is described in docs/settings.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_SETTINGS = ("private_api/settings.py", "public_api/settings.py", "consumer/node/settings.py")
# Only tests give these.
_FOR_TESTS = {"CRASH_AT", "CRASH_MARKER"}


@pytest.mark.parametrize("module", _SETTINGS)
def test_every_variable_is_in_the_docs(module: str) -> None:
    # Variables are the only strings of capitals in these modules.
    text = (_ROOT / module).read_text()
    read = set(re.findall(r'"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|GPUS|INSTALLATION)"', text))
    documented = set(re.findall(r"`([A-Z0-9_]+)`", (_ROOT / "docs/settings.md").read_text()))

    assert len(read) > 5
    assert read - _FOR_TESTS <= documented
