"""Where a node shows its metrics: an address that can be used, or a line that names the variable."""

from __future__ import annotations

import pytest

from consumer.node.settings import Settings
from consumer.outside.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "meant"),
    [("", None), ("0.0.0.0:9100", ("0.0.0.0", 9100)), ("[::1]:9100", ("::1", 9100))],
)
def test_an_address_is_read(text: str, meant: tuple[str, int] | None) -> None:
    assert Settings.from_environment({"METRICS_BIND": text}).metrics_bind == meant


@pytest.mark.parametrize(
    "text", ["9100", ":9100", "0.0.0.0", "0.0.0.0:", "0.0.0.0:0", "0.0.0.0:65536", "a:b"]
)
def test_a_wrong_one_names_its_variable(text: str) -> None:
    with pytest.raises(SettingsError, match="METRICS_BIND"):
        Settings.from_environment({"METRICS_BIND": text})
