"""What registries are told: read from a file as ``docker login`` writes it, and never shown."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from consumer.node.credentials import RegistryCredentials, parse_credentials, registry_of
from consumer.outside.errors import SettingsError

SECRET = "hunter2-äöü"


def auth(user: str = "reader", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, auths: dict[str, Any], **more: Any) -> Path:
    path.write_text(json.dumps({"auths": auths, **more}))
    return path


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("alpine", "docker.io"),
        ("library/alpine:3", "docker.io"),
        ("docker.io/library/alpine", "docker.io"),
        ("index.docker.io/me/model", "docker.io"),
        ("registry.example.org/team/model:1", "registry.example.org"),
        ("Registry.Example.org:5000/model@sha256:1", "registry.example.org:5000"),
        ("localhost/model", "localhost"),
        ("10.0.0.7:5000/model", "10.0.0.7:5000"),
        ("team/model:1", "docker.io"),
    ],
)
def test_a_reference_names_its_registry(reference: str, registry: str) -> None:
    assert registry_of(reference) == registry


def test_each_registry_is_told_its_own(tmp_path: Path) -> None:
    file = write(
        tmp_path / "config.json",
        {
            "registry.example.org": auth(),
            "https://other.example.org/v2/": {"username": "me", "password": "p"},
            "https://index.docker.io/v1/": {"auth": "", "identitytoken": "token"},
        },
        credsStore="desktop",
    )
    tell = RegistryCredentials(file)
    assert tell("registry.example.org/a/b:1") == {
        "username": "reader", "password": SECRET, "serveraddress": "registry.example.org",
    }  # fmt: skip
    other = tell("other.example.org/a")
    assert other is not None
    assert (other["username"], other["password"]) == ("me", "p")
    hub = tell("alpine:3")
    assert hub == {"identitytoken": "token", "serveraddress": "https://index.docker.io/v1/"}
    # And a registry that is a stranger hears nothing of anybody's
    assert tell("registry.example.org.evil.net/a") is None
    assert tell("registry.example.org:5000/a") is None


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    file = write(tmp_path / "config.json", {"r.example.org": auth(password="old")})
    tell = RegistryCredentials(file)
    first = tell("r.example.org/a")
    assert first is not None
    assert first["password"] == "old"
    # As docker login replaces it: another file under the same name
    write(tmp_path / "new", {"r.example.org": auth(password="new")})
    (tmp_path / "new").replace(file)
    second = tell("r.example.org/a")
    assert second is not None
    assert second["password"] == "new"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not JSON"),
        (f'{{"auths": {{"r": {{"auth": "{SECRET}"', "is not JSON"),
        ("[]", 'has no object "auths"'),
        ('{"auths": []}', 'has no object "auths"'),
        (json.dumps({"auths": {"r.example.org": SECRET}}), "nothing of r.example.org that can be understood"),
        (json.dumps({"auths": {"r.example.org": {"auth": SECRET}}}), "no base64 of user:password"),
        (json.dumps({"auths": {"r.example.org": auth("")}}), "no base64 of user:password"),
        (json.dumps({"auths": {"r.example.org": {}}}), "neither a password nor a token for r.example.org"),
        (json.dumps({"auths": {"r.example.org": {}}, "credsStore": "x"}), "credential helper"),
    ],
)
def test_a_wrong_file_is_one_line_that_shows_no_secret(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        RegistryCredentials(file).check()
    said = str(caught.value)
    assert said.startswith(f"REGISTRY_CREDENTIALS_FILE: {file} ")
    assert complaint in said
    assert "\n" not in said
    assert SECRET not in said


def test_a_missing_file_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"REGISTRY_CREDENTIALS_FILE: .* cannot be read: No such file"):
        RegistryCredentials(tmp_path / "nowhere").check()


def test_a_file_that_breaks_later_is_said_once_and_what_it_held_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "config.json", {"r.example.org": auth()})
    tell = RegistryCredentials(file)
    tell.check()
    file.write_text(f"{SECRET} is no JSON")
    for _ in range(3):
        known = tell("r.example.org/a")
        assert known is not None
        assert known["password"] == SECRET
    [line] = caplog.messages
    assert "is not JSON" in line
    assert SECRET not in line


def test_a_slot_that_begins_while_the_file_is_exchanged_goes_on_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tell = RegistryCredentials(tmp_path / "config.json")
    assert tell("r.example.org/a") is None
    write(tmp_path / "config.json", {"r.example.org": auth()})
    assert tell("r.example.org/a") is not None


def test_nothing_is_read_from_an_empty_list() -> None:
    assert parse_credentials('{"auths": {}}') == {}
