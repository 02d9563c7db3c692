"""Where the broker is, as a consumer reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.node.settings import Settings
from consumer.outside.errors import SettingsError

URL = "amqp://worker@mq/%2F"


def test_without_an_address_slots_wait_at_the_private_api() -> None:
    assert Settings.from_environment({"BROKER_URL": " "}).broker is None


def test_the_consumers_password_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret-1\n")
    settings = Settings.from_environment(
        {"BROKER_URL": URL, "BROKER_PASSWORD_FILE": str(tmp_path / "password")}
    )
    assert settings.broker is not None
    assert settings.broker.password == "secret-1"
    assert "secret-1" not in repr(settings)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"BROKER_URL": "mq:5672"}, "BROKER_URL must look like"),
        ({"BROKER_URL": "amqp://mq/"}, "BROKER_URL must look like .* it names no user"),
        ({"BROKER_URL": URL, "BROKER_PASSWORD": "a", "BROKER_PASSWORD_FILE": "/b"}, "are both set"),
        (
            {"BROKER_URL": URL, "BROKER_PASSWORD_FILE": "/does/not/exist"},
            "BROKER_PASSWORD_FILE cannot be read",
        ),
    ],
)
def test_a_wrong_setting_of_the_broker_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_environment(environment)
