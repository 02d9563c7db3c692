"""Settings: right values are read, wrong ones name their variable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from public_api.settings import Settings, SettingsError

ROOT = Path(__file__).resolve().parents[3]


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.threads > settings.bulk_transfers + settings.waiting_calls


def test_values_are_read(tmp_path: Path) -> None:
    # given
    key_file = tmp_path / "key"
    key_file.write_text("secret\n")

    # when
    settings = Settings.from_environment(
        {
            "PUBLIC_API_BIND": "0.0.0.0:80",
            "PRIVATE_API_URL": "http://private:8081/",
            "MAX_UPLOAD_BYTES": "5",
            "PUBLIC_API_ANONYMOUS_TASKS": "1",
            "PUBLIC_API_ANONYMOUS_KEY_FILE": str(key_file),
            "PUBLIC_API_WORKER_ROUTES": "1",
        }
    )

    # then
    assert settings.private_api_url == "http://private:8081"
    assert (settings.max_upload_bytes, settings.anonymous_key, settings.worker_routes) == (5, "secret", True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PRIVATE_API_URL", "ftp://x"), ("PRIVATE_API_URL", "http://x:99999"), ("PRIVATE_API_URL", "http://x/y"),
        ("MAX_UPLOAD_BYTES", "-1"), ("MAX_UPLOAD_BYTES", "20G"), ("MAX_UPLOAD_BYTES", "0"),
        ("PUBLIC_API_WORKER_ROUTES", "yes"), ("PUBLIC_API_ANONYMOUS_TASKS", "true"),
        ("PUBLIC_API_STALL_SECONDS", "1.5"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({name: value})


@pytest.mark.parametrize("content", [None, "", "two\nlines", "a b", "k\xe9y"])
def test_a_key_file_must_hold_one_key(tmp_path: Path, content: str | None) -> None:
    # given
    key_file = tmp_path / "key"
    if content is not None:
        key_file.write_text(content)
    environment = {"PUBLIC_API_ANONYMOUS_TASKS": "1", "PUBLIC_API_ANONYMOUS_KEY_FILE": str(key_file)}

    # when / then
    with pytest.raises(SettingsError, match="PUBLIC_API_ANONYMOUS_KEY_FILE"):
        Settings.from_environment(environment)


def test_a_wrong_setting_ends_the_service_with_one_line() -> None:
    # when
    ended = subprocess.run(
        [sys.executable, "-m", "public_api"],
        cwd=ROOT, env={"MAX_UPLOAD_BYTES": "lots"}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    # then
    assert ended.returncode == 2
    assert ended.stderr == "public_api: MAX_UPLOAD_BYTES must be a whole number above 0, not 'lots'\n"
