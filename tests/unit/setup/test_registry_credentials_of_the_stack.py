"""The file of credentials that an operator names for the stack's consumers."""

from __future__ import annotations

from pathlib import Path

import pytest

from setup.console import SetupError
from setup.stack import registry_credentials


def test_the_file_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"auths": {"registry.example.org": {"auth": "YTpi"}}}')
    assert registry_credentials.read({"REGISTRY_CREDENTIALS_FILE": str(file)}) == file.read_text()


def test_without_a_word_nothing_changes_and_none_forgets() -> None:
    assert registry_credentials.read({}) is None
    assert registry_credentials.read({"REGISTRY_CREDENTIALS_FILE": ""}) is None
    assert registry_credentials.read({"REGISTRY_CREDENTIALS_FILE": "none"}) == registry_credentials.EMPTY


@pytest.mark.parametrize("content", [b"secret", b"[]", b'{"auths": "secret"}', b"\xff\xfe", None])
def test_another_file_is_refused_without_quoting_it(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SetupError) as raised:
        registry_credentials.read({"REGISTRY_CREDENTIALS_FILE": str(file)})
    assert str(raised.value).startswith("REGISTRY_CREDENTIALS_FILE: ")
    assert "secret" not in str(raised.value)


def test_the_fingerprint_follows_the_text_and_needs_the_key() -> None:
    first = registry_credentials.fingerprint("a", b"key")
    assert first == registry_credentials.fingerprint("a", b"key")
    assert first not in {
        registry_credentials.fingerprint("b", b"key"),
        registry_credentials.fingerprint("a", b"other"),
    }
