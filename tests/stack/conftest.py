"""The full stack as operators run it: what it shows, what it reaches, and what its commands do."""

from __future__ import annotations

from tests.rig.fixtures import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]
