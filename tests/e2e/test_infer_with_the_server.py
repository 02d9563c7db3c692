"""``infer`` against the whole server: what its stub cannot vouch for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inference_server_client.cli.app import main

from tests.models.images import image_of
from tests.rig.api import Api

Infer = Callable[..., Any]


@pytest.fixture
def infer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Infer:
    """Runs the command with ``--json``; returns what it prints, or how it failed, as its exit status."""

    def run(*arguments: str | Path) -> Any:
        code = main([*map(str, arguments), "--json"], {"INFER_CONFIG_DIR": str(tmp_path / "config")})
        printed = capsys.readouterr().out
        return json.loads(printed) if code == 0 else code

    return run


def test_login_whoami_keys_and_logout(infer: Infer, admin: Api, tmp_path: Path) -> None:
    # Given somebody who logs in with the first admin's key, over TLS with certificates that the login keeps
    key_file = tmp_path / "key"
    key_file.write_text(str(admin.key))
    trusted = ["--ca-cert", admin.trusted] if admin.trusted else []
    assert infer("login", admin.url, *trusted, "--key-file", key_file)["key"]["role"] == "admin"
    # When they make a key for a colleague, who logs in with it
    theirs = tmp_path / "theirs.key"
    made = infer("keys", "add", "anna", "--expires", "90d", "--key-out", theirs)
    assert infer("login", admin.url, *trusted, "--key-file", theirs)["key"]["id"] == made["id"]
    # Then the colleague is who they are, and no admin
    seen = infer("whoami")
    assert (seen["key"]["name"], seen["key"]["role"]) == ("anna", "user")
    assert seen["key"]["expires_at"] == made["expires_at"]
    assert infer("keys", "list") == infer("admin", "dead-letters") == 4
    # And once the key is revoked it opens nothing
    listed = infer("keys", "list", "--key-file", key_file, "--limit", "1000")["items"]
    assert next(key for key in listed if key["id"] == made["id"])["last_used_at"] is not None
    assert infer("keys", "revoke", made["id"], "--key-file", key_file) == {"deleted": [made["id"]]}
    assert infer("whoami") == 4
    assert infer("logout")["removed"] is not None


@pytest.fixture
def as_admin(infer: Infer, admin: Api, tmp_path: Path) -> Infer:
    """The command after a login with the admin's key."""
    key_file = tmp_path / "key"
    key_file.write_text(str(admin.key))
    trusted = ["--ca-cert", admin.trusted] if admin.trusted else []
    assert infer("login", admin.url, *trusted, "--key-file", key_file)["key"]["role"] == "admin"
    return infer


def test_how_long_a_model_keeps_its_data(as_admin: Infer) -> None:
    times = ("--keep-input", "1d", "--keep-output", "forever")
    made = as_admin("models", "add", "keeps", image_of("echo"), *times)
    assert (made["input_retention_seconds"], made["output_retention_seconds"]) == (86400, 0)
    assert made["log_retention_seconds"] is None
    changed = as_admin("models", "update", "keeps", "--keep-output", "default", "--keep-log", "2h")
    assert (changed["output_retention_seconds"], changed["log_retention_seconds"]) == (None, 7200)
    assert changed["input_retention_seconds"] == 86400


@pytest.mark.stands("embedded", reason="The full stack has a broker.")
def test_a_server_without_a_broker_says_so(as_admin: Infer) -> None:
    assert as_admin("admin", "dead-letters") == 5


@pytest.mark.stands("stack", reason="Only the full stack has a broker.")
def test_dead_letters_can_be_looked_at_and_cleared(as_admin: Infer) -> None:
    removed = as_admin("admin", "dead-letters", "--clear")["removed"]
    assert removed >= 0
    assert as_admin("admin", "dead-letters") == {"dead_letters": [], "count": 0}
